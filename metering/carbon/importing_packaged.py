"""Factors that come with the installation: a yearly mean of each country, for where nobody has imported better."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version

import sqlalchemy as sa

from metering.carbon.importing import NewFactor, Recorded, record_factors
from metering.carbon.importing_files import UGCO2E_PER_G
from metering.database import Actor, transaction
from metering.tables import emission_factor

SOURCE = "codecarbon"
AUTHOR = "installation"

FIRST_YEAR = 2020
"""No event is older."""


def ensure_packaged_factors(engine: sa.Engine, now: datetime) -> Recorded:
    """Record the packaged factors up to the end of next year, unless they are. Raises: Unavailable.

    Several processes may do so at once. Once they are recorded this is one question to the database.
    """
    with transaction(engine, actor=Actor(AUTHOR)) as connection:
        if count := _recorded_until(connection, _end_of_next_year(now)):
            return Recorded(0, count)
        return record_factors(connection, packaged_factors(now), author=AUTHOR)


def packaged_factors(now: datetime) -> list[NewFactor]:
    """codecarbon's factor of each country, in each year from that of its data to the one after this.

    Its data are one yearly mean a country, mostly of 2022 and 2023; a later year has it too until codecarbon has a
    newer one.
    """
    return [
        NewFactor(
            zone, "location", datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC), micrograms,
            SOURCE, version(SOURCE), is_last_resort=True,
        )
        for zone, since, micrograms in _countries()
        for year in range(max(since, FIRST_YEAR), now.year + 2)
    ]  # fmt: skip


def _recorded_until(connection: sa.Connection, ends_at: datetime) -> int:
    """How many factors of the installed version end at a time."""
    columns = emission_factor.c
    own = (columns.source == SOURCE, columns.version == version(SOURCE), columns.ends_at == ends_at)
    return connection.scalar(sa.select(sa.func.count()).select_from(emission_factor).where(*own)) or 0


def _end_of_next_year(now: datetime) -> datetime:
    return datetime(now.year + 2, 1, 1, tzinfo=UTC)


def _countries() -> Iterator[tuple[str, int, int]]:
    """Zone (ISO 3166 alpha-2), year of the data and µg CO2e/kWh of each country that codecarbon knows."""
    import pycountry  # noqa: PLC0415 - half a second that only the first start needs
    from codecarbon.input import DataSource  # noqa: PLC0415

    path = DataSource().global_energy_mix_data_path  # type: ignore[no-untyped-call]
    # The library's own reader gives floats, and loads pandas to do so.
    for alpha_3, country in json.loads(path.read_text(), parse_float=Decimal).items():
        known = pycountry.countries.get(alpha_3=alpha_3)
        if known is not None:
            micrograms = Decimal(country["carbon_intensity"]) * UGCO2E_PER_G
            yield known.alpha_2, country["year"], int(micrograms.to_integral_value(ROUND_HALF_UP))
