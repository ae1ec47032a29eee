"""Monthly partitions of the entries: one a month of the books, made when its first entry comes."""

import sqlalchemy as sa

from metering.rules.periods import month_bounds

ATTACHED = (
    "SELECT count(*) FROM pg_inherits "
    "WHERE inhrelid = to_regclass(:name) AND inhparent = CAST('ledger_entry' AS regclass)"
)
"""A table of that name that is detached doesn't count: its rows would be in no ledger."""


def partition_name(year: int, month: int) -> str:
    return f"ledger_entry_{year:04d}_{month:02d}"


def ensure_partition(connection: sa.Connection, year: int, month: int) -> str:
    """Name of a month's partition, made now unless it is there.

    It is looked for every time: retention, in another process, may have dropped it since the last batch. Attaching
    locks less than CREATE TABLE … PARTITION OF, which would wait for every running report.
    """
    name = partition_name(year, month)
    if not connection.scalar(sa.text(ATTACHED), {"name": name}):
        start, end = month_bounds(year, month)
        connection.execute(sa.text(f"CREATE TABLE {name} (LIKE ledger_entry INCLUDING DEFAULTS INCLUDING STORAGE)"))
        connection.execute(
            sa.text(
                f"ALTER TABLE ledger_entry ATTACH PARTITION {name} "
                f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
            )
        )
        connection.execute(
            sa.text(
                f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {name} "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
        )
    return name
