"""Models, migrations and the database they make say the same."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from metering import migrate
from metering.database import engine_for
from metering.tables import metadata
from tests.ledger.frames import NOON, a_row

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_url(servers, database_url):
    """A database without any table."""
    name = database_url.partition("?")[0].rpartition("/")[2] + "_empty"
    admin = engine_for(servers.database_url.replace("/jauge?", "/postgres?")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield servers.database_url.replace("/jauge?", f"/{name}?")
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def include_name():
    """The filter of migrations/env.py, which as a whole can only be loaded by Alembic."""
    source = (migrate.SCRIPTS / "env.py").read_text()
    names: dict[str, Any] = {}
    exec(source[source.index("def include_name") : source.index("connection = ")], names)
    return names["include_name"]


def test_models_and_migrations_agree(book, include_name):
    book.append(a_row(), a_row(occurred_at=NOON.replace(month=1)))
    with book.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": include_name, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_the_newest_script_is_alembics_head_and_none_goes_back():
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [migrate.HEAD]
    for script in scripts.walk_revisions():
        assert not hasattr(script.module, "downgrade")


def test_many_processes_may_migrate_at_once(empty_url):
    program = (
        "import sys; from metering import migrate; from metering.database import engine_for; "
        "migrate.upgrade(engine_for(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty_url], cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)
    ]
    for process in processes:
        assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    engine = engine_for(empty_url)
    assert migrate.is_current(engine)
    migrate.upgrade(engine)
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing(empty_url, monkeypatch):
    engine = engine_for(empty_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE usage_hourly ()"))
    with pytest.raises(sa.exc.ProgrammingError):
        migrate.upgrade(engine)
    assert sa.inspect(engine).get_table_names() == ["usage_hourly"]
    assert not migrate.is_current(engine)
    engine.dispose()


def test_partitions_inherit_the_indexes_of_the_ledger(book):
    book.append(a_row())
    indexes = dict(
        book.sql("SELECT indexdef LIKE '%brin%autosummarize=%on%', count(*) FROM pg_indexes "
                 "WHERE tablename = 'ledger_entry_2026_10' GROUP BY 1")
    )  # fmt: skip
    assert indexes == {True: 2, False: 1}
