"""Taking over an OpenGateLLM, from databases of both of its generations."""

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from metering.catalog.imported_keys import ImportedKey, import_keys
from metering.catalog.keys import check_key
from metering.catalog.kinds import KINDS, load
from metering.catalog.limits import limits_for_request
from metering.database import transaction
from metering.errors import JaugeError
from metering.imports.attribution import TenantMap
from metering.imports.opengatellm import read_gateway, take_over
from metering.imports.past_usage import Span, import_usage
from metering.ledger.verify import verify
from metering.rules.limits import Request
from metering.services import Services
from metering.tables import account, api_key, catalog_change, limit_override, person, quarantine
from tests.imports import gateways
from tests.imports.conftest import GatewayDatabase, Import, entries, everything

NOW = datetime(2026, 10, 1, tzinfo=UTC)


def counts(answer: Result) -> dict[str, int]:
    """The summary of an import that went through."""
    assert answer.exit_code == 0, (answer.stdout, answer.stderr, answer.exception)
    read: dict[str, int] = json.loads(answer.stdout)
    return read


def values(
    services: Services, user: str, tenant: str, model: str = "albert-small"
) -> dict[tuple[str, str], int | None]:
    """What a user is held to for a model: meter and window to value."""
    services.catalog.refresh()
    request = Request(tenant, user=user, model=model, operation="chat")
    found = limits_for_request(services.catalog.current(), request, datetime.now(UTC))
    return {(limit.meter, limit.window): limit.value for limit in found}


def secret_file(folder: Path, secret: str = gateways.SECRET) -> str:
    path = folder / "secret"
    path.write_text(f"{secret}\n")
    return str(path)


def test_a_platform_of_2026_is_taken_over_whole(
    services: Services, gateway_2026: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    before = everything(gateway_2026.url)
    answer = take(gateway_2026.url, "--auth-secret-file", secret_file(tmp_path), "--yes", "--json")
    # The row of 2019 is older than any ledger: it waits in quarantine.
    assert answer.exit_code == 1, answer.stderr
    assert json.loads(answer.stdout) == {
        "documents": 12, "accounts": 5, "limits of single users": 5, "keys": 4,
        "accepted": 45, "duplicate": 0, "conflict": 0, "rejected": 1,
    }  # fmt: skip
    assert everything(gateway_2026.url) == before
    found = entries(services)
    chats = [found[f"usage-{number}"] for number in range(1, 41)]
    assert sum(one["input_tokens"] for one in chats) == sum(range(1, 41))
    assert sum(one["output_tokens"] for one in chats) == 2 * sum(range(1, 41))
    assert {one["source"] for one in found.values()} == {"opengatellm:import"}
    assert {one["model_requested"] for one in chats} == {one["model_served"] for one in chats} == {"albert-small"}
    assert {(one["tenant"], one["user"]) for one in chats} == {
        ("og-org-1", "og-user-2"), ("og-org-1", "og-user-3"), ("og-org-2", "og-user-4"), ("og-none", "og-user-5"),
    }  # fmt: skip
    first = found["usage-4"]
    assert (first["api_key"], first["deployment"], first["count_source"]) == (
        "og-key-2", "og-provider-4", "gateway_tokenizer",
    )  # fmt: skip
    assert (first["ended_at"] - first["occurred_at"]).total_seconds() == 0.5
    assert (first["first_token_at"] - first["occurred_at"]).total_seconds() == 0.08
    assert verify(services.engine).clean


def test_what_the_gateway_gets_wrong_is_unknown_and_never_zero(
    services: Services, gateway_2025: GatewayDatabase, take: Import
) -> None:
    assert counts(take(gateway_2025.url, "--yes", "--json"))["accepted"] == 70
    found = entries(services)
    chats = [found[f"usage-{number}"] for number in range(1, 61)]
    assert sum(one["input_tokens"] for one in chats) == 10 * sum(range(1, 61))
    assert sum(one["output_tokens"] for one in chats) == sum(range(1, 61))
    odd = [found[f"usage-{number}"] for number in range(101, 111)]
    assert [one["operation"] for one in odd[:4]] == ["embedding", "rerank", "transcription", "ocr"]
    assert [(one["input_tokens"], one["output_tokens"]) for one in odd] == [
        (None, None), (None, None), (None, None), (None, None), (None, 40), (None, None), (None, None), (None, None),
        (None, None), (5, None),
    ]  # fmt: skip
    assert [one["uncounted_requests"] for one in odd] == [1, 1, 1, 1, 1, 0, 0, 0, 1, 1]
    assert [one["count_source"] for one in odd[:5]] == [None, None, None, None, "gateway_tokenizer"]
    assert [(one["model_requested"], one["status"], one["error_code"]) for one in odd[5:8]] == [
        ("unknown", "error", None), ("unknown", "error", "outcome_unknown"), ("albert-small", "error", None),
    ]  # fmt: skip
    assert odd[9]["first_token_at"] is None
    assert "Ignore" not in str(everything(services.stores.database_url))


@pytest.mark.parametrize("generation", ["gateway_2025", "gateway_2026"])
def test_repeating_the_import_changes_nothing(
    services: Services, take: Import, tmp_path: Path, generation: str, request: pytest.FixtureRequest
) -> None:
    gateway: GatewayDatabase = request.getfixturevalue(generation)
    words = ("--auth-secret-file", secret_file(tmp_path), "--yes", "--json")
    first = json.loads(take(gateway.url, *words).stdout)
    with transaction(services.engine) as connection:
        connection.execute(quarantine.delete())
    before = everything(services.stores.database_url)
    again = json.loads(take(gateway.url, *words).stdout)
    assert (again["duplicate"], again["accepted"]) == (first["accepted"], 0)
    assert {again[name] for name in ("documents", "accounts", "limits of single users", "keys")} == {0}
    after = everything(services.stores.database_url)
    # What the ledger refuses is refused again.
    assert {name for name, rows in after.items() if rows != before[name]} <= {"quarantine"}


def test_roles_become_plans_and_whoever_differs_has_limits_of_their_own(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    take(gateway_2026.url, "--yes")
    with transaction(services.engine) as connection:
        tenants = {one.id: one for one in load(connection, KINDS["tenants"]).values()}
        models = {one.id: one for one in load(connection, KINDS["models"]).values()}
        aliases = {one.id: one.model for one in load(connection, KINDS["aliases"]).values()}
    assert {name: tenants[name].plan for name in ("og-org-1", "og-org-2", "og-org-3", "og-none")} == {
        "og-org-1": "og-role-1", "og-org-2": "og-role-2", "og-org-3": None, "og-none": "og-role-1",
    }  # fmt: skip
    assert tenants["og-org-1"].name == tenants["og-org-2"].name == "Ministère"
    assert tenants["og-org-3"].name.startswith("Robert'); DROP TABLE")
    assert len(tenants["og-org-3"].name) == 200
    assert set(models) == {"albert-small", "embeddings-small"}
    assert (models["embeddings-small"].operations, models["embeddings-small"].licence) == (
        ["embedding", "search", "file_ingest"], "unknown",
    )  # fmt: skip
    assert aliases == {"org/Albert-Small": "albert-small"}
    asked = {("requests", "minute"): 10, ("requests", "day"): 1_000, ("total_tokens", "minute"): None}
    assert values(services, "og-user-2", "og-org-1") == asked
    assert values(services, "og-user-4", "og-org-2") == {
        ("requests", "minute"): 60, ("requests", "day"): None, ("total_tokens", "day"): 1_000_000,
    }  # fmt: skip
    # An administrator of the gateway is held to nothing; a model that a role doesn't name is forbidden to it.
    assert set(values(services, "og-user-1", "og-org-1").values()) == {None}
    assert values(services, "og-user-2", "og-org-1", "embeddings-small")["requests", "day"] == 0


def test_limits_of_2025_count_prompts_and_searches_on_the_web(
    services: Services, gateway_2025: GatewayDatabase, take: Import
) -> None:
    answer = take(gateway_2025.url, "--yes")
    assert "limits of unknown models or kinds: 2" in answer.stderr
    assert values(services, "og-user-1", "og-none") == {
        ("requests", "minute"): 10, ("requests", "day"): None, ("input_tokens", "minute"): 5_000,
    }  # fmt: skip
    assert values(services, "og-user-3", "og-none")["requests", "minute"] == 30
    request = Request("og-none", user="og-user-1", operation="web_search")
    (limit,) = limits_for_request(services.catalog.current(), request, datetime.now(UTC))
    assert (limit.selector, limit.value) == ("operation:web_search", 5)


def test_keys_are_known_by_their_digest_where_the_secret_signed_them(
    services: Services, gateway_2026: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    answer = take(gateway_2026.url, "--auth-secret-file", secret_file(tmp_path), "--yes")
    assert "keys that can't be recognised by their digest: 1" in answer.stderr
    assert "revoked keys: 1" in answer.stderr
    snapshot = services.catalog.refresh()
    issued = {
        "og-key-1": gateways.secret_of(1, 1, None, claim="expires"),
        "og-key-2": gateways.secret_of(2, 2, gateways.SOON, claim="expires"),
        "og-key-4": gateways.secret_of(3, 4, gateways.SOON, claim="expires_at", sort=False),
    }
    for key_id, secret in issued.items():
        assert check_key(snapshot, hashlib.sha256(secret.encode()).digest(), NOW).key.id == key_id
    expired = gateways.secret_of(2, 3, gateways.LONG_AGO, claim="expires")
    with pytest.raises(JaugeError) as refused:
        check_key(snapshot, hashlib.sha256(expired.encode()).digest(), NOW)
    assert refused.value.code == "invalid_key"
    with transaction(services.engine) as connection:
        prefixes = connection.execute(sa.select(api_key.c.prefix, api_key.c.imported)).all()
    assert {tuple(row) for row in prefixes} == {("sk-eyJhb", True), ("sk-eyJ0e", True)}
    assert gateways.SECRET not in answer.output + str(everything(services.stores.database_url))


def test_keys_of_2025_are_known_by_their_digest_as_well(
    services: Services, gateway_2025: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    assert counts(take(gateway_2025.url, "--auth-secret-file", secret_file(tmp_path), "--yes", "--json"))["keys"] == 3
    digest = hashlib.sha256(gateways.secret_of(2, 2, gateways.SOON, claim="expires_at").encode()).digest()
    assert check_key(services.catalog.refresh(), digest, NOW).key.account == "og-user-2"


def test_without_the_secret_no_key_is_taken_over(
    services: Services, gateway_2026: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    for words in ((), ("--auth-secret-file", secret_file(tmp_path, "another secret"))):
        answer = take(gateway_2026.url, *words, "--yes")
        assert "keys that can't be recognised by their digest: 5" in answer.stderr
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(api_key)) == 0


def test_a_key_that_was_issued_anew_or_is_known_otherwise_stays_as_it_is(
    services: Services, gateway_2026: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    digest = hashlib.sha256(gateways.secret_of(1, 1, None, claim="expires").encode()).hexdigest()
    with transaction(services.engine) as connection:
        own = ImportedKey(id="by-hand", name="By hand", prefix="sk-eyJhb", sha256=digest)
        import_keys(connection, "dinum", [own])
    words = ("--auth-secret-file", secret_file(tmp_path), "--yes", "--json")
    assert json.loads(take(gateway_2026.url, *words).stdout)["keys"] == 3
    anew = gateways.shown(gateways.secret_of(2, 2, None, claim="expires"))
    gateway_2026.run(f"UPDATE token SET expires = NULL, token = '{anew}' WHERE id = 2")
    assert json.loads(take(gateway_2026.url, *words).stdout)["keys"] == 0


def test_people_are_where_people_are_and_nowhere_else(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    answer = take(gateway_2026.url, "--yes")
    with transaction(services.engine) as connection:
        people = {row.account: row for row in connection.execute(sa.select(person))}
        states = {row.id: row.status for row in connection.execute(sa.select(account))}
        told = str(connection.execute(sa.select(catalog_change)).all())
    assert people["og-user-3"].name == people["og-user-3"].email == "ben@culture.gouv.fr"
    assert states == {f"og-user-{number}": "suspended" if number == 4 else "active" for number in range(1, 6)}
    rows = {name: rows for name, rows in everything(services.stores.database_url).items() if name != "person"}
    for text in (answer.output, told, str(rows)):
        assert "gouv.fr" not in text
        assert "Dan" not in text


def test_users_of_2025_are_who_their_name_says_if_it_is_an_address(
    services: Services, gateway_2025: GatewayDatabase, take: Import
) -> None:
    take(gateway_2025.url, "--yes")
    with transaction(services.engine) as connection:
        people = {row.account: row.email for row in connection.execute(sa.select(person))}
        states = {row.id: row.status for row in connection.execute(sa.select(account))}
    assert people == {"og-user-1": "ada.martin@culture.gouv.fr", "og-user-2": "ben@sante.gouv.fr"}
    assert states["og-user-3"] == "suspended"


def test_a_map_says_which_administration_people_belong_to(
    services: Services, gateway_2026: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("organisations: {1: sante}\nusers: {5: education}\ndefault: visiteurs\n")
    answer = take(gateway_2026.url, "--tenant-map", str(path), "--yes", "--json")
    assert json.loads(answer.stdout)["accepted"] == 45
    found = entries(services)
    users = {(one["user"], one["tenant"]) for one in found.values()}
    assert users == {
        ("og-user-2", "sante"), ("og-user-3", "sante"), ("og-user-4", "og-org-2"), ("og-user-5", "education"),
        (None, "visiteurs"),
    }  # fmt: skip
    with transaction(services.engine) as connection:
        tenants = {one.id: one for one in load(connection, KINDS["tenants"]).values()}
        granted = set(connection.scalars(sa.select(limit_override.c.tenant)))
    # Who was there before stays on their own terms.
    assert (tenants["sante"].name, tenants["sante"].plan) == ("sante", None)
    assert granted == set()
    assert "og-org-1" not in tenants


def test_a_map_that_does_not_fit_is_refused_by_its_place(
    services: Services, gateway_2026: GatewayDatabase, take: Import, tmp_path: Path
) -> None:
    path = tmp_path / "map.yaml"
    for text, code, field in (
        ("organisations: {9: sante}", "unknown_in_gateway", "organisations.9"),
        ("users: {99: sante}", "unknown_in_gateway", "users.99"),
        ("organisations: {1: 'no tenant!'}", "invalid_tenant_map", "organisations"),
        ("organisation: {1: sante}", "invalid_tenant_map", "organisation"),
        ("organisations: [", "malformed_yaml", "line 2"),
        ("- 1", "invalid_tenant_map", "default"),
    ):
        path.write_text(f"{text}\n")
        answer = take(gateway_2026.url, "--tenant-map", str(path), "--yes")
        assert (answer.exit_code, f"[{code}]" in answer.stderr, field in answer.stderr) == (1, True, True), (
            answer.stderr
        )
        assert "no tenant!" not in answer.stderr
    assert entries(services) == {}


def test_a_dry_run_shows_and_writes_nothing_and_neither_does_a_no(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    before = everything(services.stores.database_url)
    answer = take(gateway_2026.url, "--dry-run")
    assert answer.exit_code == 0
    assert "+ tenants og-org-1" in answer.stdout
    assert "12 documents, 5 accounts" in answer.stderr
    assert "rows of usage 46" in answer.stdout
    assert take(gateway_2026.url, input="n\n").exit_code == 0
    assert everything(services.stores.database_url) == before


def test_usage_from_the_switch_on_is_left_to_the_gateway_itself(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    answer = take(gateway_2026.url, "--until", "2026-09-02T00:00:00Z", "--yes", "--json")
    assert json.loads(answer.stdout)["accepted"] == 23
    assert max(one["occurred_at"] for one in entries(services).values()) < datetime(2026, 9, 2, tzinfo=UTC)


def test_usage_that_comes_while_the_import_runs_is_left_to_the_next(
    services: Services, gateway_2026: GatewayDatabase
) -> None:
    gateway = read_gateway(gateway_2026.engine)
    gateway_2026.run("INSERT INTO \"user\" (id, email, role_id, organization_id) VALUES (6, 'e@f.gouv.fr', 2, 1)")
    row = "id, created, user_id, endpoint, router_name, status"
    gateway_2026.run(f"INSERT INTO usage ({row}) VALUES (200, now(), 6, '/v1/chat/completions', 'albert-small', 200)")
    with transaction(services.engine) as connection:
        prepared = take_over(connection, gateway.directory, TenantMap(), None, author="test", now=NOW)
    span = Span(gateway.directory.last_row)
    told: list[int] = []
    import_usage(
        gateway_2026.engine, gateway.shape, span, prepared.attribution, services.intake,
        lambda amount, total=None: told.append(amount),
    )  # fmt: skip
    assert sum(told) == gateway.directory.usage_rows == 46
    assert "usage-200" not in entries(services)


def test_later_imports_add_what_is_new_and_keep_what_an_operator_completed(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    take(gateway_2026.url, "--yes")
    with transaction(services.engine) as connection:
        connection.execute(sa.text("UPDATE model SET licence = 'Apache-2.0' WHERE id = 'albert-small'"))
    gateway_2026.run("INSERT INTO \"user\" (id, email, role_id, organization_id) VALUES (6, 'e@f.gouv.fr', 2, 1)")
    gateway_2026.run("UPDATE \"limit\" SET value = 12 WHERE role_id = 1 AND router_id = 1 AND type = 'RPM'")
    gateway_2026.run('UPDATE "user" SET organization_id = 2 WHERE id = 3')
    row = "created, user_id, endpoint, router_name, status, prompt_tokens, completion_tokens"
    gateway_2026.run(
        f"INSERT INTO usage (id, {row}) VALUES (999, now(), 3, '/v1/chat/completions', 'albert-small', 200, 1, 1)"
    )
    again = json.loads(take(gateway_2026.url, "--yes", "--json").stdout)
    assert {name: again[name] for name in ("documents", "accounts", "accepted", "duplicate", "conflict")} == {
        "documents": 1, "accounts": 1, "accepted": 1, "duplicate": 45, "conflict": 0,
    }  # fmt: skip
    # Who has an account stays in its administration: what was recorded of them is recorded there.
    assert entries(services)["usage-999"]["tenant"] == "og-org-1"
    assert values(services, "og-user-2", "og-org-1")["requests", "minute"] == 12
    assert values(services, "og-user-6", "og-org-1")["requests", "minute"] == 60
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.text("SELECT licence FROM model WHERE id = 'albert-small'")) == "Apache-2.0"


def test_a_name_that_means_something_else_here_stops_the_whole_import(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    with transaction(services.engine) as connection:
        connection.execute(sa.text("INSERT INTO model_category (id, name) VALUES ('albert-small', 'Taken')"))
    answer = take(gateway_2026.url, "--yes")
    assert (answer.exit_code, "[unknown_reference]" in answer.stderr) == (1, True)
    assert entries(services) == {}
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(account)) == 0


URL = "postgresql://reader:hunter2@127.0.0.1:1/gateway"


def test_a_database_that_is_not_there_is_told_and_its_password_is_not(services: Services, take: Import) -> None:
    for url, exit_code, code in (
        (URL, 75, "gateway_database_unavailable"),
        (URL.replace("postgresql://", "postgresql+asyncpg://"), 75, "gateway_database_unavailable"),
        ("mysql://reader:hunter2@127.0.0.1/gateway", 1, "invalid_database_url"),
        ("postgresql://reader:hunter2@127.0.0.1:port/gateway", 1, "invalid_database_url"),
        ("hunter2", 1, "invalid_database_url"),
    ):
        answer = take(url, "--yes")
        assert (answer.exit_code, f"[{code}]" in answer.stderr) == (exit_code, True), answer.stderr
        assert "hunter2" not in answer.output + str(answer.exception)


def test_a_release_between_the_two_is_read_by_the_columns_that_it_has(
    services: Services, gateway_2026: GatewayDatabase, take: Import
) -> None:
    for change in (
        "RENAME created TO datetime", "RENAME latency TO duration", "RENAME ttft TO time_to_first_token",
        "RENAME router_name TO request_model", "DROP token_id", "DROP provider_id",
        "ALTER datetime TYPE timestamp USING datetime AT TIME ZONE 'UTC'",
    ):  # fmt: skip
        gateway_2026.run(f"ALTER TABLE usage {change}")
    assert json.loads(take(gateway_2026.url, "--yes", "--json").stdout)["accepted"] == 45
    entry = entries(services)["usage-4"]
    assert (entry["input_tokens"], entry["model_requested"], entry["api_key"], entry["deployment"]) == (
        4, "albert-small", None, None,
    )  # fmt: skip
    assert entry["occurred_at"] == datetime(2026, 9, 1, 4, tzinfo=UTC)


def test_another_database_is_not_read_as_a_gateway_s(
    services: Services, take: Import, empty_url: str, gateway_2026: GatewayDatabase
) -> None:
    answer = take(empty_url, "--yes")
    assert (answer.exit_code, "[unknown_gateway_schema]" in answer.stderr) == (1, True)
    gateway_2026.run("ALTER TABLE usage RENAME created TO happened")
    answer = take(gateway_2026.url, "--yes")
    assert "[missing_gateway_column]" in answer.stderr
    assert re.search(r"usage.created: created or datetime", answer.stderr)


def test_a_user_that_may_read_is_enough_and_one_that_may_not_is_told_so(
    services: Services, take: Import, gateway_2026: GatewayDatabase
) -> None:
    url = _as_reader(gateway_2026, "GRANT SELECT ON usage TO {0}")
    answer = take(url, "--yes")
    assert "[unknown_gateway_schema]" in answer.stderr
    # Columns that may be read, in a table of which not all may be.
    gateway_2026.run("REVOKE ALL ON usage FROM reader")
    gateway_2026.run("GRANT SELECT (id) ON usage TO reader")
    gateway_2026.run(
        "GRANT INSERT (created, user_id, endpoint, router_name, status, prompt_tokens, completion_tokens)"
        " ON usage TO reader"
    )
    gateway_2026.run(
        'GRANT SELECT ON role, permission, "limit", "user", token, organization, router, router_alias TO reader'
    )
    answer = take(url, "--yes")
    assert "[gateway_table_unreadable]" in answer.stderr
    gateway_2026.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    assert json.loads(take(url, "--yes", "--json").stdout)["accepted"] == 45


def _as_reader(gateway: GatewayDatabase, grant: str) -> str:
    """The gateway's URL for a user with few rights."""
    with transaction(gateway.engine) as connection:
        known: Any = connection.scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = 'reader'"))
        if known is None:
            connection.execute(sa.text("CREATE ROLE reader LOGIN PASSWORD 'hunter2'"))
        connection.execute(sa.text(grant.format("reader")))
    return re.sub(r"//[^@/]*@", "//reader:hunter2@", gateway.url)
