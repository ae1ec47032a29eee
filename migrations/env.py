"""Alembic's entry: migrate the database whose connection the caller hands over."""

from alembic import context

from metering.tables import metadata


def include_name(name: str | None, kind: str, parents: dict[str, str | None]) -> bool:
    """Leave monthly partitions out: the ledger makes them as months come."""
    table = name if kind == "table" else parents.get("table_name")
    return table is None or not table.startswith("ledger_entry_")


connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
context.run_migrations()
