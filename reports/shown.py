"""What pages of figures show: every text ready, in the reader's language, for the templates to lay out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reports.figures import Bars
from reports.selection import Selection


@dataclass(frozen=True, slots=True)
class Choice:
    value: str
    label: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Select:
    """A drop-down list of the form."""

    name: str
    label: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Link:
    label: str
    url: str
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure of the period. `value` None is unknown; `note` stands below it."""

    label: str
    value: str | None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A line of the ranking; `paint` names the fill of its series, None where the chart doesn't draw it by name."""

    rank: str
    name: str
    amount: str | None
    share: str | None
    share_percent: int
    uncounted: str
    paint: str | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    title: str
    heading: str
    rows: tuple[RankedRow, ...]
    rest: tuple[RankedRow, ...]
    rest_summary: str
    cut_note: str


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A series of the chart: its name and the name of its fill."""

    name: str
    paint: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its words; the legend is in the order of the bars, from below. `chart` None: nothing to draw."""

    title: str
    label: str
    finding: str
    notes: tuple[str, ...]
    chart: Bars | None
    legend: tuple[LegendEntry, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A line of the data table; a value None is unknown."""

    when: str
    group: str
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a long table is shown, and the addresses of its neighbours; `position` is empty if it has one."""

    is_open: bool
    position: str
    previous_url: str | None
    next_url: str | None


@dataclass(frozen=True, slots=True)
class DataTable:
    caption: str
    count: str
    group_heading: str
    headings: tuple[str, ...]
    rows: tuple[TableRow, ...]
    paging: Paging


@dataclass(frozen=True, slots=True)
class Empty:
    """Why there is nothing to show, and what to do about it."""

    reason: str
    links: tuple[Link, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """What readers are told. `label` and `state` say in words what its colour, chosen by `kind`, only repeats."""

    kind: str
    label: str
    state: str
    title: str
    when: str
    text: str


@dataclass(frozen=True, slots=True)
class UsagePage:
    """The page "Consommation" with every text ready. Either `empty` is set, or the figures are.

    explorer: what the script of an open explorer draws from.
    """

    selection: Selection
    title: str
    period: str
    as_of: str
    selects: tuple[Select, ...]
    presets: tuple[Link, ...]
    announcements: tuple[Announcement, ...] = ()
    headlines: tuple[Headline, ...] = ()
    figure: Figure | None = None
    explorer: Mapping[str, Any] | None = None
    ranking: Ranking | None = None
    table: DataTable | None = None
    empty: Empty | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured value and its range; `value` None is unknown."""

    value: str | None
    between: str = ""


@dataclass(frozen=True, slots=True)
class FootprintRow:
    """A line of a table of energy and emissions."""

    name: str
    values: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class FootprintTable:
    """Energy and emissions by something; headings are those of the name and of each value."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[FootprintRow, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class QualityRow:
    """What figures of one quality make of the energy; where it isn't measured, `amount` says how many requests."""

    label: str
    amount: str
    share: str | None
    share_percent: int


@dataclass(frozen=True, slots=True)
class FactorRow:
    """An origin of emission factors."""

    zone: str
    kind: str
    value: str
    source: str
    period: str


@dataclass(frozen=True, slots=True)
class Method:
    """How figures were worked out: the method's versions and the origins of emission factors."""

    versions: str
    factors: tuple[FactorRow, ...]


@dataclass(frozen=True, slots=True)
class CarbonPage:
    """The page "Empreinte carbone" with every text ready. Either `empty` is set, or the figures are."""

    selection: Selection
    title: str
    period: str
    as_of: str
    selects: tuple[Select, ...]
    presets: tuple[Link, ...]
    headlines: tuple[Headline, ...] = ()
    figure: Figure | None = None
    quality: tuple[QualityRow, ...] = ()
    groups: FootprintTable | None = None
    platform: FootprintTable | None = None
    table: DataTable | None = None
    method: Method | None = None
    empty: Empty | None = None
