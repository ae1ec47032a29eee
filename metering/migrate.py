"""Bring a database's tables to the current version."""

from pathlib import Path

import sqlalchemy as sa

from metering.database import transaction

SCRIPTS = Path(__file__).parent.parent / "migrations"
MIGRATION_LOCK = 0x4A41554745  # "JAUGE": only one process migrates at a time

HEAD = max(script.name.partition("_")[0] for script in (SCRIPTS / "versions").glob("[0-9]*.py"))
"""Newest revision; scripts are named by their number, so that a process can tell without loading Alembic."""


def upgrade(engine: sa.Engine) -> None:
    """Apply every missing migration, in one transaction. Raises: Unavailable."""
    if is_current(engine):
        return
    from alembic import command  # noqa: PLC0415 - half a second, and seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with transaction(engine) as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_current(engine: sa.Engine) -> bool:
    """Whether every migration has been applied. Raises: Unavailable."""
    with transaction(engine) as connection:
        if connection.scalar(sa.select(sa.func.to_regclass("alembic_version"))) is None:
            return False
        return bool(connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == HEAD)
