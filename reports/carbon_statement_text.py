"""The carbon statement as text that people read: columns of a fixed width, in French or English. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from reports import wording
from reports.carbon_statement import CarbonStatement, Footprint, ModelPart
from reports.carbon_words import emissions_of, energy_of, said_factor
from reports.selection import ZONE
from reports.shown import Measured
from reports.wording import Language, say

INDENT = "  "


def statement_text(statement: CarbonStatement, language: Language) -> str:
    """A statement's text, ended by a line break."""
    sections = [_heading(statement, language)]
    if statement.footprint is not None:
        sections += [
            _totals(statement.footprint, language),
            _quality(statement, language),
            _models(statement, language),
        ]
    sections += [_method(statement, language), _seal(statement, language)]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _heading(statement: CarbonStatement, language: Language) -> list[str]:
    start, end = (datetime.fromisoformat(edge) for edge in (statement.start, statement.end))
    title = say(language, "statement", name=statement.name, tenant=statement.tenant)
    month = wording.month(start.date(), language)
    period = wording.period(start.date(), (end - timedelta(days=1)).date(), language)
    key = "statement.complete" if statement.is_complete else "statement.incomplete"
    until = wording.moment(datetime.fromisoformat(statement.known_until), ZONE, language)
    lines = [title, "=" * len(title), f"{month}. {period}. {say(language, 'zone', zone=statement.time_zone)}"]
    lines.append(say(language, key, when=until))
    return lines if statement.footprint is not None else [*lines, say(language, "carbon.finding.unknown") + "."]


def _totals(footprint: Footprint, language: Language) -> list[str]:
    figures = msgspec.structs.asdict(footprint)
    kinds = {
        "carbon.total": "total",
        "carbon.use": "location",
        "carbon.manufacture": "embodied",
        "carbon.market": "market",
    }
    values = [(say(language, key), emissions_of(figures, name, language, wording.mass)) for key, name in kinds.items()]
    values.append((say(language, "carbon.energy"), energy_of(figures, language)))
    for key, count in (
        ("column.requests", footprint.requests),
        ("carbon.unmeasured_requests", footprint.requests_unknown),
    ):
        values.append((say(language, key), Measured(wording.number(count, language))))
    return list(_columns([(name, *_told(value, language)) for name, value in values]))


def _quality(statement: CarbonStatement, language: Language) -> list[str]:
    rows = [
        (
            say(language, f"carbon.tier.{part.tier}"),
            wording.energy(part.energy_uj, language),
            wording.share(part.share_ppm, 10**6, language),
        )
        for part in statement.quality
    ]
    footprint = statement.footprint
    if footprint is not None and footprint.requests_unknown:
        said = wording.amount(footprint.requests_unknown, "requests", language)
        rows.append((say(language, "carbon.tier.U"), said, ""))
    return _titled(say(language, "carbon.quality"), rows)


def _models(statement: CarbonStatement, language: Language) -> list[str]:
    rows = [_model(part, language) for part in statement.models]
    return _titled(say(language, "carbon.groups", group=say(language, "group.model")), rows)


def _model(part: ModelPart, language: Language) -> tuple[str, ...]:
    unit = part.per_1000_tokens_ng
    name = say(language, "unnamed") if part.model is None else part.model
    total = emissions_of(msgspec.structs.asdict(part.footprint), "total", language, wording.mass)
    per_tokens = "" if unit is None else say(language, "statement.per_1000_tokens", mass=wording.mass(unit, language))
    return name, *_told(total, language), per_tokens


def _method(statement: CarbonStatement, language: Language) -> list[str]:
    rows = [(say(language, "carbon.method.version"), ", ".join(statement.methods))]
    for one in statement.factors:
        value, source = said_factor(one, language)
        kind = say(language, f"carbon.method.kind.{one.kind}")
        rows.append((f"{one.zone}, {kind}", f"{value} {say(language, 'carbon.method.value')}, {source}"))
    if not statement.factors:
        rows.append((say(language, "carbon.method.none"), ""))
    return _titled(say(language, "carbon.method"), rows)


def _seal(statement: CarbonStatement, language: Language) -> list[str]:
    recorded_at = datetime.fromisoformat(statement.as_of.recorded_at).astimezone(UTC)
    batch = wording.number(statement.as_of.batch, language)
    when = wording.moment(recorded_at, ZONE, language)
    return [say(language, "statement.batch", batch=batch, when=when), f"SHA-256 {statement.as_of.hash}"]


def _told(value: Measured, language: Language) -> tuple[str, str]:
    return value.value or say(language, "carbon.unmeasured"), value.between


def _titled(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [title, "-" * len(title), *_columns(rows)]


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows in columns as wide as their widest cell."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (INDENT + INDENT.join(cells)).rstrip()
