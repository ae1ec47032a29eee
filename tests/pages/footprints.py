"""Footprints for the page tests: what a ledger of carbon might answer, made without one. Deterministic."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from metering.rules.carbon.impacts import NG_PER_G, UJ_PER_KWH
from metering.rules.carbon.tiers import Tier
from metering.rules.periods import PARIS, bucket_starts
from metering.tables import CARBON_SUMS
from reports.carbon import CarbonRow, FactorSource
from reports.carbon_page import Footprint, GroupFootprint
from reports.selection import CARBON, Selection
from reports.usage import UsageQuestion
from tests.pages.samples import CHOICES, NOW, selection

START = datetime(2026, 8, 31, 22, tzinfo=UTC)
FACTORS = (
    FactorSource(
        "FR", "location", "codecarbon", "3.3.2", True, 1,
        datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), 56_039_000, 56_039_000,
    ),
    FactorSource("FR", "location", "rte", "2026", False, 96, START, START + timedelta(days=1), 18_000_000, 61_500_000),
)  # fmt: skip


def chosen(**changes: Any) -> Selection:
    return selection(place=CARBON, **changes)


def footprint_row(
    start: datetime | None = None,
    group: Mapping[str, str | None] | None = None,
    *,
    requests: int = 10,
    unknown: int = 0,
    kwh: int | None = 2,
    tiers: Mapping[Tier, int] | None = None,
    **changes: int | None,
) -> CarbonRow:
    """A row of some kWh, with 50 g of use and 100 g of manufacture a kWh; bounds are half and double."""
    sums: dict[str, int | None] = dict.fromkeys(CARBON_SUMS)
    sums["requests"] = requests
    if kwh is not None:
        energy_uj = kwh * UJ_PER_KWH
        sums |= {"gpu_energy_uj": energy_uj // 2}
        for name, value in (
            ("energy{}_uj", energy_uj), ("location{}_ng", 50 * kwh * NG_PER_G), ("embodied{}_ng", 100 * kwh * NG_PER_G)
        ):  # fmt: skip
            sums |= {name.format(""): value, name.format("_lower"): value // 2, name.format("_upper"): 2 * value}
    energy = sums["energy_uj"] or 0
    return CarbonRow(start, group or {}, sums | changes, unknown, {"A": energy} if tiers is None else tiers)


def footprint(question: UsageQuestion | None = None, **changes: Any) -> Footprint:
    """What the ledger of carbon might answer for September 2026."""
    asked = question or chosen().question()
    starts = bucket_starts(asked.start, min(asked.end, NOW), asked.bucket or "day", PARIS)
    name = asked.group_by[0] if asked.group_by else None
    values = {"model": ("albert-large", "albert-small", "web-index"), None: ()}.get(name, ("a", "b", None))
    answer = Footprint(
        rows=[footprint_row(start, unknown=place % 3, kwh=1 + place % 4) for place, start in enumerate(starts)],
        groups=[
            GroupFootprint(footprint_row(None, {name or "": value}, kwh=9 - 4 * place), 1_500 * (place + 1))
            for place, value in enumerate(values[:2])
        ]
        + [
            GroupFootprint(footprint_row(None, {name or "": value}, unknown=10, kwh=None), None) for value in values[2:]
        ],
        whole=footprint_row(
            requests=1_000, unknown=120, kwh=20,
            tiers={"A": 5 * UJ_PER_KWH, "B": 10 * UJ_PER_KWH, "C": 4 * UJ_PER_KWH, "D": UJ_PER_KWH},
        ),
        waiting=footprint_row(requests=0, kwh=7), unallocated=footprint_row(requests=0, kwh=1),
        methods=("1",), factors=FACTORS, known_until=NOW, batch=1_465, bounds=(START, NOW), choices=CHOICES,
    )  # fmt: skip
    return replace(answer, **changes)
