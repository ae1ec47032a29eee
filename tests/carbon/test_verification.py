"""Whatever is changed behind the back of readings and of carbon is named."""

import json
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from metering.carbon.posting import Marks, post
from metering.carbon.readings import Readings
from metering.carbon.verification import verify_carbon
from metering.cli import main
from metering.database import transaction
from metering.settings import get_settings
from tests.carbon.readings import a_reading
from tests.carbon.test_posting import HOUR, METER, an_entry

LATER = datetime(2026, 10, 5, 13, tzinfo=UTC)


@pytest.fixture
def written(services):
    """Readings in two batches, and two hours of carbon of which one was restated."""
    readings = Readings(services.engine)
    readings.append([a_reading(energy_mj=1), a_reading(energy_mj=2, host_energy_mj=5, host_source="wall")])
    readings.append([a_reading()])
    with transaction(services.engine) as connection:
        meter = METER._replace(energy_uj=100, host_uj=None)
        post(connection, HOUR, [an_entry("u-1", 90), an_entry("u-2", 10)], [meter], Marks(1, 2, 0))
        post(connection, LATER, [an_entry("u-1", 7)], [meter._replace(energy_uj=7)], Marks(1, 2, 0))
        post(connection, HOUR, [an_entry("u-1", 100)], [meter], Marks(2, 2, 0))
    return services


def tampered(services, statement):
    """Differences found after a statement that no trigger stopped."""
    with transaction(services.engine) as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.text(statement))
    return [(one.kind, one.where) for one in verify_carbon(services.engine).differences]


def test_nothing_differs_in_what_was_written(written):
    result = verify_carbon(written.engine)
    assert result.clean
    assert (result.batches, result.rows) == (5, 3 + 2 + 1 + 3 + 3)
    with written.engine.connect() as connection:
        connection.execute(sa.text("ALTER DATABASE " + connection.engine.url.database + " SET timezone = 'Asia/Tokyo'"))
        connection.commit()
    written.engine.dispose()
    assert verify_carbon(written.engine).clean


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE energy_reading SET energy_mj = 3 WHERE energy_mj = 2", [("readings_changed", "batch 1")]),
        ("DELETE FROM energy_reading WHERE energy_mj IS NULL", [("readings_changed", "batch 2")]),
        (
            "UPDATE energy_reading SET batch_seq = 9 WHERE energy_mj = 1",
            [("readings_changed", "batch 1"), ("readings_changed", "batch 9")],
        ),
        ("UPDATE energy_batch SET row_count = 9 WHERE seq = 1", [("readings_batch_changed", "batch 1")]),
        ("UPDATE carbon_entry SET location_ng = 9 WHERE gpu_energy_uj = 10", [("carbon_changed", "batch 1")]),
        ("UPDATE carbon_gpu SET flags = '{}' WHERE batch_seq = 2", [("carbon_changed", "batch 2")]),
        (
            "UPDATE carbon_batch SET hour = hour + interval '1 day' WHERE seq = 2",
            [
                ("carbon_changed", "batch 2"),
                ("carbon_changed", "batch 2"),
                ("energy_not_conserved", "hour 2026-10-05 13:00 UTC"),
            ],
        ),
        (
            "UPDATE carbon_entry SET hour = hour + interval '2 hours' WHERE gpu_energy_uj = 7",
            [
                ("carbon_changed", "batch 2"),
                ("energy_not_conserved", "hour 2026-10-05 13:00 UTC"),
                ("energy_not_conserved", "hour 2026-10-05 15:00 UTC"),
            ],
        ),
        ("UPDATE carbon_batch SET method = '0' WHERE seq = 3", [("carbon_changed", "batch 3")]),
        (
            "UPDATE carbon_entry SET gpu_energy_uj = 6 WHERE gpu_energy_uj = 7",
            [("carbon_changed", "batch 2"), ("energy_not_conserved", "hour 2026-10-05 13:00 UTC")],
        ),
        (
            "DELETE FROM energy_batch WHERE seq = 1",
            [("readings_changed", "batch 1"), ("readings_batch_missing", "batch 1")],
        ),
    ],
)  # fmt: skip
def test_what_was_changed_is_named(written, statement, found):
    assert tampered(written, statement) == found


@pytest.fixture
def command(written, monkeypatch):
    """`jauge verify` on what was written."""
    monkeypatch.setenv("JAUGE_DATABASE_URL", written.settings.database_url.get_secret_value())
    monkeypatch.setenv("JAUGE_REDIS_URL", written.settings.redis_url.get_secret_value())
    get_settings.cache_clear()
    yield lambda *words: CliRunner().invoke(main, ["verify", *words])
    get_settings.cache_clear()


def test_the_command_names_what_differs_in_carbon(written, command):
    assert "Readings and carbon: 5 batches, 12 rows: nothing differs." in command().stdout
    tampered(written, "UPDATE carbon_entry SET location_ng = 9 WHERE gpu_energy_uj = 10")
    answer = command()
    assert answer.exit_code == 1
    assert "carbon_changed: batch 1: its rows don't have its digest" in answer.stdout
    told = json.loads(command("--json").stdout)
    assert (told["clean"], told["differences"], len(told["carbon"]["differences"])) == (False, [], 1)
