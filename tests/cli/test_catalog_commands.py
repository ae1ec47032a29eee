"""Commands of people, access, keys, limits and models, each against a real database."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from metering.catalog import documents
from metering.catalog.access import request_access
from metering.catalog.deciding import Asked
from metering.catalog.kinds import KINDS, put
from metering.catalog.overrides import Grant, add_override
from metering.catalog.projects import add_project
from metering.catalog.raises import Asked as RaiseAsked
from metering.catalog.raises import ask_raise
from metering.cli import main
from metering.cli.asking import read_instant
from metering.database import transaction
from metering.events.decoding import decode_one
from metering.identity import Principal
from metering.rules.periods import PARIS
from metering.services import Services
from metering.settings import Settings, get_settings
from metering.tables import access_request, account, api_key, catalog_change, limit_override, outbox, raise_request
from metering.tables import tenant as tenant_table
from tests.people import add_agent

SIRET = "13002526500013"
GROUPS = ("tenants", "access", "accounts", "keys", "limits", "raises", "overrides", "models")

Command = Callable[..., Result]


@pytest.fixture
def command(services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`jauge` on the test's own stores."""
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.chdir(tmp_path)
    # What commands set up for a process of their own would keep other tests from reading the log.
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()
    yield lambda *words, **more: CliRunner().invoke(main, words, **more)
    get_settings.cache_clear()


def done(answer: Result) -> str:
    """What a command that succeeded has printed."""
    assert answer.exit_code == 0, (answer.stderr, answer.exception)
    return answer.stdout


def listed(answer: Result) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(done(answer))
    return items


def refused(answer: Result, code: str) -> str:
    """The sentence of a command that an error of ours ended."""
    assert (answer.exit_code, answer.stdout) == (1, ""), answer.exception
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.endswith(f"[{code}]\n")
    return answer.stderr


def row_of(services: Services, table: sa.Table, row_id: str) -> sa.Row[Any]:
    with transaction(services.engine) as connection:
        return connection.execute(sa.select(table).where(table.c.id == row_id)).one()


def mails(services: Services) -> list[tuple[str, str]]:
    query = sa.select(outbox.c.subject, outbox.c.recipient).where(outbox.c.channel == "mail").order_by(outbox.c.number)
    with transaction(services.engine) as connection:
        return [tuple(row) for row in connection.execute(query)]


def write(services: Services, **sections: list[documents.Document]) -> None:
    with transaction(services.engine) as connection:
        for name, items in sections.items():
            for document in items:
                put(connection, KINDS[name], document)


def test_every_command_explains_itself_and_its_options() -> None:
    for group in GROUPS:
        for name, one in main.commands[group].commands.items():
            shown = CliRunner().invoke(main, [group, name, "--help"])
            assert shown.exit_code == 0
            assert one.help, (group, name)
            assert name not in {"list", "show"} or "--json" in shown.stdout, (group, name)
            assert all(option.help for option in one.params if isinstance(option, click.Option)), (group, name)


def test_a_date_is_midnight_in_paris_and_a_time_needs_its_offset() -> None:
    assert read_instant("2026-07-01") == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert read_instant("2026-12-01") == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert read_instant("2026-12-01T08:00:00+02:00") == datetime(2026, 12, 1, 6, tzinfo=UTC)
    for wrong in ("2026-12-01T08:00:00", "2026-13-01", "tomorrow", "0001-01-01", "2026-W01-1"):
        with pytest.raises(ValueError, match="YYYY-MM-DD"):
            read_instant(wrong)


# Administrations


def test_an_administration_is_registered_with_its_siret_and_plan(services: Services, command: Command) -> None:
    write(services, plans=[documents.Plan(id="wide", name="Wide")])
    for _ in range(2):
        done(command("tenants", "add", "agency", "--name", "Agency", "--siret", SIRET, "--plan", "wide"))
    (found,) = [one for one in listed(command("tenants", "list", "--json")) if one["id"] == "agency"]
    assert {name: found[name] for name in ("name", "siret", "status", "plan")} == {
        "name": "Agency",
        "siret": SIRET,
        "status": "active",
        "plan": "wide",
    }
    assert services.catalog.refresh().plan_of("agency").id == "wide"
    assert SIRET in done(command("tenants", "list"))


def test_an_unknown_plan_registers_nothing(services: Services, command: Command) -> None:
    refused(command("tenants", "add", "agency", "--plan", "none"), "unknown_plan")
    refused(command("tenants", "add", "agency", "--siret", "13002526500014"), "invalid_siret")
    assert "agency" not in services.catalog.refresh().tenants


def test_an_administration_is_suspended_restored_and_deleted(services: Services, command: Command) -> None:
    add_agent(services, "dinum", "manager", account_id="u-1")
    done(command("tenants", "suspend", "dinum", "--reason", "Terms broken."))
    suspended = row_of(services, tenant_table, "dinum")
    assert (suspended.status, suspended.status_reason) == ("suspended", "Terms broken.")
    done(command("tenants", "restore", "dinum"))
    assert services.catalog.refresh().tenants["dinum"].status == "active"
    assert command("tenants", "delete", "dinum", "--reason", "Closed.", input="n\n").exit_code == 1
    assert services.catalog.refresh().tenants["dinum"].status == "active"
    done(command("tenants", "delete", "dinum", "--reason", "Closed.", "--yes"))
    catalog = services.catalog.refresh()
    assert (catalog.tenants["dinum"].status, catalog.accounts["u-1"].status) == ("deleted", "deleted")
    refused(command("tenants", "restore", "dinum"), "tenant_deleted")
    refused(command("tenants", "suspend", "nobody", "--reason", "x"), "unknown_tenant")


def test_the_record_of_changes_names_who_ran_the_command(services: Services, command: Command) -> None:
    done(command("tenants", "suspend", "dinum", "--reason", "Terms broken."))
    query = sa.select(catalog_change.c.author).order_by(catalog_change.c.number.desc()).limit(1)
    with transaction(services.engine) as connection:
        author = connection.scalar(query)
    assert str(author).startswith("command:")


# Access and accounts


def ask_access(services: Services, email: str) -> str:
    asked = Asked("individual", "Agency", None, "Alix", email, "fr", "To try it out.", None)
    return request_access(services.engine, services.master_key, asked, datetime.now(UTC)).id


def test_requests_for_an_account_are_listed_approved_and_refused(services: Services, command: Command) -> None:
    first, second = ask_access(services, "alix@agency.gouv.fr"), ask_access(services, "noe@agency.gouv.fr")
    pending = listed(command("access", "list", "--state", "pending", "--json"))
    assert [(one["id"], one["email"]) for one in pending] == [
        (first, "alix@agency.gouv.fr"),
        (second, "noe@agency.gouv.fr"),
    ]
    assert listed(command("access", "list", "--after", first, "--limit", "1", "--json"))[0]["id"] == second
    done(command("access", "approve", first, "--tenant", "dinum", "--role", "manager"))
    done(command("access", "refuse", second, "--reason", "Not an administration."))
    approved, turned_down = (row_of(services, access_request, one) for one in (first, second))
    assert (approved.state, approved.tenant, approved.role) == ("approved", "dinum", "manager")
    assert approved.decided_by.startswith("command:")
    assert (turned_down.state, turned_down.state_reason) == ("refused", "Not an administration.")
    assert ("access_approved", f"access_request:{first}") in mails(services)
    refused(command("access", "approve", first, "--tenant", "dinum"), "request_decided")
    refused(command("access", "refuse", "r-none", "--reason", "x"), "unknown_request")
    assert "approved" in done(command("access", "list"))


def test_somebody_is_invited_by_mail(services: Services, command: Command) -> None:
    words = ("--name", "Alix", "--email", "alix@agency.gouv.fr", "--role", "manager", "--language", "en")
    request_id = done(command("accounts", "invite", "dinum", *words)).partition(":")[0]
    found = row_of(services, access_request, request_id)
    assert (found.kind, found.tenant, found.role, found.language) == ("invitation", "dinum", "manager", "en")
    assert mails(services) == [("invitation", f"access_request:{request_id}")]
    refused(command("accounts", "invite", "nobody", *words), "unknown_tenant")
    refused(command("accounts", "invite", "dinum", "--name", "Alix", "--email", "no address"), "invalid_email")


def test_an_account_is_listed_suspended_restored_and_deleted(services: Services, command: Command) -> None:
    add_agent(services, "dinum", "manager", account_id="u-1")
    (found,) = listed(command("accounts", "list", "dinum", "--json"))
    assert (found["id"], found["role"], found["email"]) == ("u-1", "manager", "u-1@example.test")
    done(command("accounts", "suspend", "dinum", "u-1", "--reason", "Terms broken."))
    suspended = row_of(services, account, "u-1")
    assert (suspended.status, suspended.status_reason, suspended.suspended_by) == (
        "suspended",
        "Terms broken.",
        "operator",
    )
    done(command("accounts", "restore", "dinum", "u-1"))
    assert row_of(services, account, "u-1").status == "active"
    assert command("accounts", "delete", "dinum", "u-1", input="\n").exit_code == 1
    assert row_of(services, account, "u-1").status == "active"
    done(command("accounts", "delete", "dinum", "u-1", input="y\n"))
    assert row_of(services, account, "u-1").status == "deleted"
    refused(command("accounts", "restore", "dinum", "u-1"), "unknown_account")
    refused(command("accounts", "list", "nobody"), "unknown_tenant")


# Keys


def test_a_secret_is_printed_once_and_never_listed(services: Services, command: Command) -> None:
    with transaction(services.engine) as connection:
        add_project(connection, documents.Project(tenant="dinum", id="assistant", name="Assistant"))
    made = command("keys", "add", "dinum", "--name", "Robot", "--project", "assistant", "--expires", "2027-06-01")
    secret = done(made).strip()
    key = services.catalog.find_key(hashlib.sha256(secret.encode()).digest())
    assert key is not None
    assert (key.tenant, key.project, key.account) == ("dinum", "assistant", None)
    assert key.expires_at == datetime(2027, 5, 31, 22, tzinfo=UTC)
    for words in (("keys", "list", "dinum"), ("keys", "list", "dinum", "--json"), ("catalog", "changes", "--json")):
        shown = done(command(*words))
        assert key.id in shown
        assert secret not in shown
        assert hashlib.sha256(secret.encode()).hexdigest() not in shown


def test_a_revoked_key_is_refused_for_good(services: Services, command: Command) -> None:
    secret = done(command("keys", "add", "dinum", "--name", "Robot")).strip()
    ((key_id, status),) = [(one["id"], one["status"]) for one in listed(command("keys", "list", "dinum", "--json"))]
    assert status == "active"
    refused(command("keys", "revoke", "interieur", key_id), "unknown_key")
    done(command("keys", "revoke", "dinum", key_id))
    services.catalog.refresh()
    key = services.catalog.find_key(hashlib.sha256(secret.encode()).digest())
    assert key is not None
    assert key.revoked_at is not None


def test_a_key_is_refused_that_ends_too_late_or_is_for_nobody_known(services: Services, command: Command) -> None:
    refused(command("keys", "add", "dinum", "--name", "Robot", "--expires", "2050-01-01"), "out_of_range")
    refused(command("keys", "add", "dinum", "--name", "Robot", "--project", "none"), "unknown_project")
    refused(command("keys", "add", "nobody", "--name", "Robot"), "unknown_tenant")
    assert command("keys", "add", "dinum", "--name", "Robot", "--expires", "soon").exit_code == 2
    assert command("keys", "add", "dinum", "--name", " ").exit_code == 2
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(api_key)) == 0


def issued(number: int, **changes: Any) -> dict[str, Any]:
    """A key that a gateway has issued."""
    sha256 = hashlib.sha256(f"secret {number}".encode()).hexdigest()
    return {"id": f"g-{number}", "name": f"Key {number}", "prefix": "sk-", "sha256": sha256} | changes


def csv_of(keys: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for key in keys for name in key))
    return "\n".join([",".join(columns), *(",".join(key.get(name, "") for name in columns) for key in keys)])


def test_keys_of_a_gateway_are_taken_over_from_csv_and_again_changes_nothing(services, command, tmp_path) -> None:
    add_agent(services, "dinum", account_id="u-1")
    end = datetime.now(PARIS).date() + timedelta(days=30)
    keys = [issued(1, name="Ünï", account="u-1"), issued(2, expires_at=end.isoformat()), issued(3)]
    (tmp_path / "keys.csv").write_text("\ufeff" + csv_of(keys), encoding="utf-8")
    first = json.loads(done(command("keys", "import", "dinum", "keys.csv", "--json")))
    assert first == {"added": 3, "known": 0}
    assert json.loads(done(command("keys", "import", "dinum", "keys.csv", "--json"))) == {"added": 0, "known": 3}
    services.catalog.refresh()
    found = [services.catalog.find_key(bytes.fromhex(key["sha256"])) for key in keys]
    assert [(key.id, key.account) for key in found] == [("g-1", "u-1"), ("g-2", None), ("g-3", None)]
    assert found[1].expires_at == read_instant(end.isoformat())
    assert row_of(services, api_key, "g-1").name == "Ünï"


def test_more_keys_than_a_call_takes_are_taken_over_from_standard_input(services, command) -> None:
    text = "\n".join(json.dumps(issued(number)) for number in range(10_001)) + "\n\n"
    assert done(command("keys", "import", "dinum", "-", input=text)) == "added 10,001, known 0\n"
    assert done(command("keys", "import", "dinum", "-", input=text)) == "added 0, known 10,001\n"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (json.dumps(issued(1)) + "\n" + json.dumps(issued(2, sha256="hidden")), "invalid_key_line", "line 2: sha256"),
        (json.dumps(issued(1, expires_at="hidden")), "invalid_key_line", "line 1: expires_at"),
        (json.dumps(issued(1, hidden=1)), "invalid_key_line", "line 1"),
        (json.dumps(issued(1)) + "\nhidden", "malformed_file", "line 2"),
        (json.dumps(issued(1)) + "\n[]", "malformed_file", "line 2"),
        ("hidden,other\n1,2", "malformed_file", "sha256"),
        (csv_of([issued(1)]) + ",hidden", "malformed_file", "line 2"),
        (csv_of([issued(1), issued(2)]) + '\n"hidden', "malformed_file", "line 4"),
        (csv_of([issued(1), issued(2, project="hidden")]), "unknown_reference", "line 3"),
        (csv_of([issued(1)]) + "\n\n" + csv_of([issued(1, id="g-2")]).split("\n")[1], "key_exists", "line 4"),
        (b"id,name\n\xff", "malformed_file", "line 2"),
    ],
)
def test_a_file_that_is_wrong_names_the_line_and_quotes_nothing(services, command, text, code, told) -> None:
    sentence = refused(command("keys", "import", "dinum", "-", input=text), code)
    assert told in sentence
    assert "hidden" not in sentence
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(api_key)) == 0


# Limits


def test_limits_in_force_are_shown_for_who_and_what_is_named(services: Services, command: Command) -> None:
    write_models(services)
    every = listed(command("limits", "show", "dinum", "--json"))
    assert {(one["scope"], one["meter"], one["window"], one["value"]) for one in every} >= {
        ("user", "requests", "minute", 10),
        ("tenant", "total_tokens", "month", 500_000_000),
    }
    (month,) = [one for one in every if one["window"] == "month"]
    assert month["window_start"] is not None
    grant(services, user_limit(None), "u-1")
    named = listed(
        command("limits", "show", "dinum", "--user", "u-1", "--model", "large", "--operation", "chat", "--json")
    )
    (own,) = [one for one in named if (one["meter"], one["window"]) == ("requests", "day")]
    assert (own["selector"], own["subject"], own["value"], own["source"]) == ("model:small", "u-1", None, "override")
    assert "unlimited" in done(command("limits", "show", "dinum", "--user", "u-1"))
    assert "unlimited" not in done(command("limits", "show", "dinum", "--user", "u-2"))
    refused(command("limits", "show", "dinum", "--model", "none"), "unknown_model")
    refused(command("limits", "show", "nobody"), "unknown_tenant")


def user_limit(value: int | None) -> documents.Limit:
    return documents.Limit(scope="user", selector="model:*", meter="requests", window="day", value=value)


def grant(services: Services, limit: documents.Limit, subject: str) -> str:
    with transaction(services.engine) as connection:
        granted = Grant("dinum", limit, subject, None, None, "Needed.", "operator:x")
        return add_override(connection, granted, datetime.now(UTC)).id


def ask(services: Services, account_id: str) -> str:
    add_agent(services, "dinum", account_id=account_id)
    asked = RaiseAsked(user_limit(5_000), None, "Many documents.")
    caller = Principal("x", "member", "dinum", account_id)
    return ask_raise(services.engine, services.catalog.refresh(), caller, asked, datetime.now(UTC)).id


def test_requests_for_a_higher_limit_are_listed_approved_and_refused(services: Services, command: Command) -> None:
    first, second = ask(services, "u-1"), ask(services, "u-2")
    pending = listed(command("raises", "list", "--state", "pending", "--json"))
    assert [(one["id"], one["limit"]["value"], one["motive"]) for one in pending] == [
        (first, 5_000, "Many documents."),
        (second, 5_000, "Many documents."),
    ]
    assert pending[0]["study"]["days_with_use"] == 0
    ends = (datetime.now(PARIS).date() + timedelta(days=10)).isoformat()
    approve = ("raises", "approve", first, "--reason", "Fair.")
    refused(command(*approve, "--value", "5"), "not_a_raise")
    done(command(*approve, "--value", "2000", "--ends", ends))
    done(command("raises", "refuse", second, "--reason", "No room."))
    (override,) = services.catalog.refresh().overrides["dinum"]
    assert (override.limit.subject, override.limit.value, override.ends_at) == ("u-1", 2_000, read_instant(ends))
    turned_down = row_of(services, raise_request, second)
    assert (turned_down.state, turned_down.decision_reason) == ("refused", "No room.")
    assert ("raise_decided", "account:u-2") in mails(services)
    refused(command("raises", "refuse", first, "--reason", "x"), "already_decided")
    refused(command("raises", "refuse", "none", "--reason", "x"), "unknown_limit_request")
    shown = done(command("raises", "list"))
    assert "5,000" in shown
    assert "approved" in shown


def test_without_a_value_a_request_is_granted_as_asked_until_further_notice(services, command) -> None:
    done(command("raises", "approve", ask(services, "u-1"), "--reason", "Fair."))
    (override,) = services.catalog.refresh().overrides["dinum"]
    assert (override.limit.value, override.ends_at) == (5_000, None)


def test_an_override_is_listed_and_ended(services: Services, command: Command) -> None:
    override_id = grant(services, user_limit(None), "u-1")
    (found,) = listed(command("overrides", "list", "dinum", "--json"))
    assert (found["id"], found["ends_at"], found["limit"]["value"]) == (override_id, None, None)
    assert "unlimited" in done(command("overrides", "list", "dinum"))
    refused(command("overrides", "end", "interieur", override_id), "unknown_override")
    done(command("overrides", "end", "dinum", override_id))
    assert row_of(services, limit_override, override_id).ends_at <= datetime.now(UTC)
    assert listed(command("overrides", "list", "interieur", "--json")) == []
    refused(command("overrides", "list", "nobody"), "unknown_tenant")


# Models


def write_models(services: Services) -> None:
    """Two models of a category, one of which has another name, and a second category."""
    common = {"category": "text", "publisher": "Lab", "licence": "Apache-2.0"}
    write(
        services,
        categories=[documents.Category(id="text", name="Text"), documents.Category(id="words", name="Words")],
        models=[
            documents.Model(id="small", name="Small", parameters=8_000_000_000, **common),
            documents.Model(id="next", name="Next", **common),
        ],
        aliases=[documents.Alias(id="large", model="small")],
    )


def test_models_are_listed_with_licence_and_end(services: Services, command: Command) -> None:
    write_models(services)
    done(command("models", "retire", "small", "--successor", "next"))
    following, small = listed(command("models", "list", "--json"))
    assert (following["id"], following["status"], following["retires_at"]) == ("next", "available", None)
    assert {name: small[name] for name in ("category", "licence", "parameters", "status", "successor")} == {
        "category": "text",
        "licence": "Apache-2.0",
        "parameters": 8_000_000_000,
        "status": "retiring",
        "successor": "next",
    }
    assert "Apache-2.0" in done(command("models", "list"))


@pytest.mark.parametrize(("words", "kind", "days"), [((), "model", 30), (("--category",), "category", 90)])
def test_without_a_date_the_end_is_the_first_midnight_allowed(services, command, words, kind, days) -> None:
    write_models(services)
    name = {"model": "small", "category": "text"}[kind]
    done(command("models", "retire", name, *words))
    found = services.catalog.refresh().retirements[kind, name]
    local = found.retires_at.astimezone(PARIS)
    assert (local.hour, local.minute, local.second) == (0, 0, 0)
    assert timedelta(days=days) <= found.retires_at - found.announced_at <= timedelta(days=days + 1, hours=1)
    done(command("models", "retire", name, *words))
    assert services.catalog.refresh().retirements[kind, name] == found


def test_an_end_may_move_but_never_comes_sooner_than_is_allowed(services: Services, command: Command) -> None:
    write_models(services)
    today = datetime.now(PARIS).date()
    on = [(today + timedelta(days=days)).isoformat() for days in (60, 90, 20, 40)]
    dates = []
    done(command("models", "retire", "small", "--successor", "next", "--on", on[0]))
    dates.append(services.catalog.refresh().retirements["model", "small"])
    done(command("models", "retire", "small", "--on", on[1]))
    dates.append(services.catalog.refresh().retirements["model", "small"])
    assert "30 days" in refused(command("models", "retire", "small", "--on", on[2]), "invalid_retirement")
    done(command("models", "retire", "small", "--on", on[3]))
    dates.append(services.catalog.refresh().retirements["model", "small"])
    assert [one.retires_at for one in dates] == [read_instant(on[0]), read_instant(on[1]), read_instant(on[3])]
    assert dates[0].announced_at == dates[1].announced_at < dates[2].announced_at
    assert {one.successor for one in dates} == {"next"}


def test_a_retirement_is_cancelled(services: Services, command: Command) -> None:
    write_models(services)
    done(command("models", "retire", "text", "--category", "--successor", "words"))
    refused(command("models", "keep", "text"), "unknown_document")
    done(command("models", "keep", "text", "--category"))
    assert services.catalog.refresh().retirements == {}


def test_what_retires_and_what_follows_it_must_be_there(services: Services, command: Command) -> None:
    write_models(services)
    refused(command("models", "retire", "none"), "unknown_reference")
    refused(command("models", "retire", "small", "--successor", "none"), "unknown_reference")
    refused(command("models", "retire", "small", "--successor", "small"), "invalid_retirement")
    assert services.catalog.refresh().retirements == {}


def test_refused_events_are_dismissed_with_a_reason(services: Services, command: Command) -> None:
    event = {"specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": "trial", "data": {}}
    services.intake.take([decode_one(json.dumps(event).encode())], "http")
    (number,) = [one["number"] for one in listed(command("quarantine", "list", "--json"))]
    for wrong in (["dismiss", str(number)], ["dismiss", "--reason", "r"], ["dismiss", str(number), "--reason", " "]):
        assert command("quarantine", *wrong).exit_code == 2, wrong
    assert done(command("quarantine", "dismiss", str(number), "--reason", "A trial.")) == "1 dismissed\n"
    assert listed(command("quarantine", "list", "--json")) == []
    (found,) = listed(command("quarantine", "list", "--all", "--json"))
    assert (found["dismissed_why"], found["dismissed_by"].partition(":")[0]) == ("A trial.", "command")
    assert done(command("quarantine", "dismiss", str(number), "--reason", "Again.")) == "0 dismissed\n"
