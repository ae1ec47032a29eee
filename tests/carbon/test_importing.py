"""Emission factors from a file to the grams of an hour, by command, by route and by themselves."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from metering.carbon.importing import FACTOR_LOCK, NewFactor, record_factors
from metering.carbon.importing_packaged import ensure_packaged_factors, packaged_factors
from metering.carbon.sites import DEFAULT_SITE
from metering.carbon.verification import verify_carbon
from metering.cli import main
from metering.database import Actor, transaction
from metering.errors import Conflict
from metering.settings import get_settings
from metering.tables import emission_factor
from tests.carbon.hours import HOUR, a_request, post_all, readings_of, record, sums
from tests.carbon.test_importing_files import rte
from tests.people import add_agent

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NOON_IN_PARIS = ("2026-10-05", "14:00")  # HOUR


def new(value=20_000_000, **changes: Any) -> NewFactor:
    factor = NewFactor("FR", "location", HOUR, HOUR + timedelta(hours=1), value, "test", "1", row=2)
    return factor._replace(**changes)


def put(services, *factors, dry_run=False):
    with transaction(services.engine, actor=Actor("somebody")) as connection:
        return record_factors(connection, factors, author="somebody", dry_run=dry_run)


def recorded(services):
    with transaction(services.engine) as connection:
        return connection.execute(sa.select(emission_factor).order_by(emission_factor.c.number)).mappings().all()


@pytest.fixture
def jauge(settings, services, monkeypatch, tmp_path):
    """`jauge` on the test's own stores."""
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()
    yield lambda *words: CliRunner().invoke(main, ["factors", *map(str, words)])
    get_settings.cache_clear()


def a_file(tmp_path, *values, nature="Données consolidées", name="eco2mix.xls"):
    """Quarters of the hour of `tests.carbon.hours`, as RTE writes them."""
    path = tmp_path / name
    path.write_bytes(
        rte(*((NOON_IN_PARIS[0], f"14:{15 * at:02}", value) for at, value in enumerate(values)), nature=nature)
    )
    return path


def test_new_factors_change_grams_and_not_energy(services, jauge, tmp_path):
    ensure_packaged_factors(services.engine, NOW)
    record(
        services, [a_request(number, HOUR + timedelta(minutes=number)) for number in range(9)], readings_of(HOUR, 60)
    )
    assert post_all(services) == 1
    before = sums(services, "tenant", "part")
    answer = jauge("import", a_file(tmp_path, "20", "22", "24", "26"), "--format", "rte")
    assert answer.exit_code == 0, answer.output
    assert post_all(services) == 1
    after = sums(services, "tenant", "part")
    assert {key: row[:3] for key, row in after.items()} == {key: row[:3] for key, row in before.items()}
    for key, (_requests, _gpu, energy_uj, location_ng) in after.items():
        assert location_ng < before[key][3]
        assert abs(location_ng - energy_uj * 23 / 3600) <= 1
    assert verify_carbon(services.engine).clean
    assert jauge("import", tmp_path / "eco2mix.xls", "--format", "rte").exit_code == 0
    assert post_all(services) == 0


def test_repeating_an_import_changes_nothing(services):
    quarters = [new(row=at, starts_at=HOUR + at * timedelta(minutes=15)) for at in range(3)]
    assert put(services, *quarters) == (3, 0)
    assert put(services, *quarters) == (0, 3)
    assert put(services, new(starts_at=HOUR - timedelta(hours=1)), *quarters) == (1, 3)
    assert len(recorded(services)) == 4
    assert {row["author"] for row in recorded(services)} == {"somebody"}


def test_a_revised_value_needs_a_version_and_nothing_of_its_file_is_recorded(services):
    put(services, new())
    with pytest.raises(Conflict) as refused:
        put(services, new(starts_at=HOUR + timedelta(minutes=15), row=3), new(21_000_000, row=9))
    assert (refused.value.code, refused.value.field) == ("factor_recorded", "version")
    assert "row 9" in refused.value.detail
    assert len(recorded(services)) == 1
    assert put(services, new(21_000_000, version="2")) == (1, 0)


def test_what_would_be_recorded_is_told_without_recording_it(services):
    put(services, new())
    assert put(services, new(), new(kind="market"), dry_run=True) == (1, 1)
    assert len(recorded(services)) == 1


def test_imports_at_once_commit_their_numbers_in_order(services):
    """What marks hours goes by the highest number: one that came late would be passed over."""
    with transaction(services.engine) as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(FACTOR_LOCK)))
        importing = threading.Thread(target=put, args=(services, new()))
        importing.start()
        importing.join(0.3)
        assert importing.is_alive()
    importing.join(10)
    assert len(recorded(services)) == 1


def test_a_fresh_installation_has_a_factor_for_its_default_zone_this_year_and_next(services):
    done = ensure_packaged_factors(services.engine, NOW)
    assert done.known == 0
    rows = recorded(services)
    assert len(rows) == done.new > 200
    assert {(row["source"], row["kind"], row["is_last_resort"]) for row in rows} == {("codecarbon", "location", True)}
    own = [row for row in rows if row["zone"] == DEFAULT_SITE.zone]
    assert own[-1]["ends_at"] == datetime(2028, 1, 1, tzinfo=UTC)
    assert {row["ugco2e_per_kwh"] for row in own} == {56_039_000}
    assert all(len(row["zone"]) == 2 for row in rows)
    assert ensure_packaged_factors(services.engine, NOW) == (0, len({row["zone"] for row in rows}))
    assert len(recorded(services)) == len(rows)


def test_a_new_year_adds_the_one_after_and_keeps_the_rest(services):
    ensure_packaged_factors(services.engine, NOW)
    before = len(recorded(services))
    done = ensure_packaged_factors(services.engine, NOW.replace(year=2027))
    assert (done.known, len(recorded(services))) == (before, before + done.new)
    assert {row["starts_at"].year for row in recorded(services)[before:]} == {2028}


def test_packaged_factors_are_what_the_library_says():
    from codecarbon.input import DataSource

    mix = DataSource().get_global_energy_mix_data()
    factors = packaged_factors(NOW)
    assert {factor.zone for factor in factors} >= {"FR", "DE", "SE", "US"}
    french = [factor for factor in factors if factor.zone == "FR"]
    assert french[0].starts_at.year == mix["FRA"]["year"]
    assert french[0].ugco2e_per_kwh == round(mix["FRA"]["carbon_intensity"] * 10**6)
    assert len({factor.zone for factor in factors}) == len(mix)


def test_grams_are_there_without_an_operators_action(services):
    ensure_packaged_factors(services.engine, NOW)
    record(services, [a_request(1, HOUR)], readings_of(HOUR, 60))
    post_all(services)
    assert sums(services)[()][3] > 0


def test_the_command_tells_rows_period_values_gaps_and_clock(jauge, tmp_path):
    answer = jauge("import", a_file(tmp_path, "20", "", "24.5", "26"), "--format", "rte", "--dry-run")
    told = (
        "FR (location, rte-eco2mix, version donnees-consolidees): 3 slots from 2026-10-05T14:00+02:00 to "
        "2026-10-05T15:00+02:00; g CO2e/kWh: lowest 20, mean 23.5, highest 26."
    )
    assert answer.stdout.splitlines() == [
        "4 rows, 1 of them without a value.",
        told,
        "FR: no value from 2026-10-05T14:15+02:00 to 2026-10-05T14:30+02:00.",
        "3 factors would be recorded, 0 were there already.",
    ]
    days = [("2025-03-30", f"{at:02}:00", "20") for at in range(24)] + [
        ("2025-10-26", f"{at:02}:00", "20") for at in range(24)
    ]
    (tmp_path / "clock.xls").write_bytes(rte(*days))
    told = jauge("import", tmp_path / "clock.xls", "--format", "rte").stdout
    assert "Not taken, of an hour that the clock left out in spring: 1." in told
    assert "Taken for both hours of one name in autumn: 1." in told


def test_the_command_records_who_imported_and_lists_what_is_there(services, jauge, tmp_path):
    assert jauge("import", a_file(tmp_path, "20", "22"), "--format", "rte").stdout.endswith(
        "2 factors recorded, 0 were there already.\n"
    )
    assert all(row["author"].startswith("command:") for row in recorded(services))
    later = a_file(tmp_path, "20", "23", nature="Données définitives")
    assert jauge("import", later, "--format", "rte").exit_code == 0
    assert jauge("import", "--packaged").exit_code == 0
    lines = jauge("list", "--zone", "FR").stdout.splitlines()
    assert [line.split()[2:5] for line in lines[1:]] == [
        ["codecarbon", "3.3.2", "5"], ["rte-eco2mix", "donnees-definitives", "2"],
        ["rte-eco2mix", "donnees-consolidees", "2"],
    ]  # fmt: skip
    assert '"mean": "21"' in jauge("list", "--zone", "FR", "--kind", "location", "--json").stdout
    assert jauge("list", "--kind", "market").stdout == "Nothing to show.\n"


def test_a_revision_of_a_file_is_told_to_need_a_version(jauge, tmp_path):
    jauge("import", a_file(tmp_path, "20", "22"), "--format", "rte")
    answer = jauge("import", a_file(tmp_path, "20", "23"), "--format", "rte")
    assert answer.exit_code == 1
    assert "another value: 1, the first of them in row 3. (version: a new version" in answer.stderr
    assert answer.stderr.endswith("[factor_recorded]\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Give a FILE, or --packaged."),
        (("FILE", "--packaged"), "Give a FILE, or --packaged."),
        (("FILE",), "Say who wrote the file: --format."),
        (("FILE", "--format", "csv"), "Say whose factors these are: --source."),
        (("FILE", "--format", "csv", "--source", "s", "--tz", "Nowhere/City"), "expected the IANA name"),
    ],
)
def test_a_call_that_lacks_something_says_what(tmp_path, words, told):
    path = str(a_file(tmp_path, "20", "22"))
    answer = CliRunner().invoke(main, ["factors", "import", *(path if word == "FILE" else word for word in words)])
    assert answer.exit_code == 2
    assert told in answer.stderr


def test_a_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("metering.cli.factors.FILE_BYTES_MAX", 100)
    answer = CliRunner().invoke(main, ["factors", "import", str(a_file(tmp_path, "20", "22")), "--format", "rte"])
    assert answer.exit_code == 1
    assert answer.stderr.endswith("[file_too_large]\n")


def test_factors_are_read_by_everybody_who_reads_reports(api, services):
    put(
        services,
        new(21_250_000),
        new(starts_at=HOUR - timedelta(hours=1), ends_at=HOUR),
        new(kind="market", zone="hydro"),
    )
    _account, member = add_agent(services, "dinum", "member", "u-1")
    for token in (api.operator_token, member):
        with api.client(token) as client:
            answer = client.get("/v1/emission-factors", params={"zone": "FR", "start": "2026-10-05T14:00:00+02:00"})
        (one,) = answer.json()["items"]
        assert one.pop("imported_at")
        assert one == {
            "number": 1, "zone": "FR", "kind": "location", "starts_at": "2026-10-05T12:00:00Z",
            "ends_at": "2026-10-05T13:00:00Z", "gco2e_per_kwh": "21.25", "ugco2e_per_kwh": 21_250_000,
            "source": "test", "version": "1", "is_last_resort": False,
        }  # fmt: skip
    with api.client(api.gateway_token) as client:
        assert client.get("/v1/emission-factors").status_code == 403


def test_factors_come_in_pages(api, services):
    put(services, *(new(number, starts_at=HOUR - number * timedelta(hours=1)) for number in range(5)))
    with api.client(api.operator_token) as client:
        first = client.get("/v1/emission-factors", params={"limit": 3}).json()
        rest = client.get("/v1/emission-factors", params={"limit": 3, "after": first["next_after"]}).json()
        market = client.get("/v1/emission-factors", params={"kind": "market", "end": HOUR.isoformat()}).json()
    assert [one["number"] for one in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]
    assert (rest["next_after"], market) == (None, {"items": [], "next_after": None})


def test_a_question_about_factors_that_makes_no_sense_is_refused_by_name(api):
    refused = {
        "start": ("2026-10-05T12:00:00", 422, "invalid_instant"),
        "end": ("yesterday", 400, "invalid_request"),
        "kind": ("guess", 400, "invalid_request"),
        "limit": ("0", 400, "invalid_request"),
    }
    with api.client(api.operator_token) as client:
        for field, (value, status, code) in refused.items():
            answer = client.get("/v1/emission-factors", params={field: value})
            assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (status, code, field)
