"""API keys: checked on the hot path, taken over from a gateway, announced before they end."""

import hashlib
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from metering.catalog import issued_keys
from metering.catalog.accounts import set_role, suspend_account
from metering.catalog.documents import Project
from metering.catalog.imported_keys import Imported, ImportedKey, import_keys
from metering.catalog.issued_keys import (
    KeyAsked,
    announce_expiring_keys,
    change_key,
    create_key,
    list_keys,
    revoke_key,
)
from metering.catalog.keys import check_key
from metering.catalog.own_tokens import add_own_token
from metering.catalog.projects import add_project, change_project
from metering.catalog.snapshot import digest_of
from metering.catalog.tenants import suspend_tenant
from metering.catalog.terms import accept
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.errors import Conflict, Forbidden, JaugeError, Unauthorized, Unprocessable
from metering.identity import Principal
from metering.services import Services
from metering.tables import api_key
from tests.catalog.test_terms import publish, terms
from tests.people import add_agent
from tests.threads import run_threads

NOW = datetime(2026, 10, 5, 8, tzinfo=UTC)
DAY = timedelta(days=1)
OPERATOR = Principal("operator", "operator")


def agent(services: Services, role: Any = "member") -> Principal:
    account, _token = add_agent(services, "dinum", role)
    return Principal(f"{account}-token", role, "dinum", account)


def make(services: Services, caller: Principal, **changes: Any) -> issued_keys.NewKey:
    asked = KeyAsked(**{"name": "k", "project": None, "expires_at": None, "for_program": False, **changes})
    with transaction(services.engine, actor=caller.actor) as connection:
        return create_key(connection, caller.tenant, caller, asked, now=NOW)


def said(services: Services, secret: str, now: datetime = NOW) -> str:
    """What the hot path says of a key."""
    try:
        found = check_key(services.catalog.refresh(), digest_of(secret), now)
    except JaugeError as error:
        return error.code
    return found.key.id


def agree(services: Services, caller: Principal, version: str, now: datetime = NOW) -> None:
    with transaction(services.engine, actor=caller.actor) as connection:
        accept(connection, services.catalog.current(), caller, ("terms", version), now)


def test_a_key_works_until_it_ends_or_is_revoked(services) -> None:
    member = agent(services)
    ending, revoked = make(services, member, expires_at=NOW + DAY), make(services, member)
    assert [said(services, one.secret) for one in (ending, revoked)] == [ending.id, revoked.id]
    found = check_key(services.catalog.current(), digest_of(ending.secret), NOW)
    assert found.account is not None
    assert (found.tenant.id, found.account.id) == ("dinum", member.account)
    assert said(services, ending.secret, NOW + DAY - timedelta(microseconds=1)) == ending.id
    assert said(services, ending.secret, NOW + DAY) == "invalid_key"
    with transaction(services.engine, actor=member.actor) as connection:
        revoke_key(connection, "dinum", member, revoked.id, now=NOW)
        revoke_key(connection, "dinum", member, revoked.id, now=NOW + DAY)
    assert said(services, revoked.secret) == "invalid_key"
    assert said(services, "sk-jauge-unknown") == "invalid_key"
    with transaction(services.engine, actor=member.actor) as connection:
        shown = {one.id: (one.status, one.revoked_at) for one in list_keys(connection, "dinum", member, now=NOW + DAY)}
    assert shown == {ending.id: ("expired", None), revoked.id: ("revoked", NOW)}


def test_a_key_of_suspended_people_is_refused_and_says_why(services) -> None:
    member, manager = agent(services), agent(services, "manager")
    own, program = make(services, member), make(services, manager, for_program=True)
    with transaction(services.engine) as connection:
        suspend_account(connection, OPERATOR, "dinum", member.account or "", "abuse", now=NOW)
    assert [said(services, one.secret) for one in (own, program)] == ["account_suspended", program.id]
    with transaction(services.engine) as connection:
        suspend_tenant(connection, "dinum", "unpaid", now=NOW)
        shown = {one.status for one in list_keys(connection, "dinum", OPERATOR, now=NOW)}
    assert [said(services, one.secret) for one in (own, program)] == ["tenant_suspended"] * 2
    assert shown == {"suspended"}


def test_terms_in_force_are_accepted_before_a_key_is_made_or_used(services) -> None:
    member = agent(services)
    before = make(services, member)
    publish(services, terms("1", NOW, NOW + DAY))
    assert said(services, before.secret) == before.id
    assert said(services, before.secret, NOW + DAY) == "terms_not_accepted"
    with pytest.raises(Forbidden) as refused, transaction(services.engine, actor=member.actor) as connection:
        create_key(connection, member.tenant, member, KeyAsked("k", None, None, for_program=False), now=NOW + DAY)
    assert (refused.value.code, refused.value.expected) == ("terms_not_accepted", "terms 1")
    agree(services, member, "1")
    assert said(services, before.secret, NOW + DAY) == before.id


def test_a_programs_key_needs_one_active_manager_who_has_accepted(services) -> None:
    publish(services, terms("1", NOW, NOW))
    first, second, member = agent(services, "manager"), agent(services, "manager"), agent(services)
    for one in (first, member):
        agree(services, one, "1")
    with pytest.raises(Forbidden, match="Managers make"):
        make(services, member, for_program=True)
    with pytest.raises(Forbidden, match="terms in force"):
        make(services, second, for_program=True)
    program = make(services, first, for_program=True)
    assert said(services, program.secret) == program.id
    with transaction(services.engine) as connection:
        set_role(connection, OPERATOR, "dinum", first.account or "", "member")
    assert said(services, program.secret) == "terms_not_accepted"
    agree(services, second, "1")
    assert said(services, program.secret) == program.id
    with transaction(services.engine) as connection:
        suspend_account(connection, OPERATOR, "dinum", second.account or "", "abuse", now=NOW)
    assert said(services, program.secret) == "terms_not_accepted"


def test_a_key_that_breaks_a_rule_is_not_made(services, monkeypatch) -> None:
    manager, member = agent(services, "manager"), agent(services)
    with transaction(services.engine, actor=manager.actor) as connection:
        add_project(connection, a_project("open"))
        add_project(connection, a_project("closed"))
        change_project(connection, "dinum", "closed", {"status": "closed"})
    assert make(services, member, project="open").project == "open"
    assert make(services, member).expires_at == NOW + timedelta(days=365)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"project": "closed"}, "unknown_project"),
        ({"project": "unknown"}, "unknown_project"),
        ({"expires_at": NOW}, "out_of_range"),
        ({"expires_at": NOW + timedelta(days=732)}, "out_of_range"),
    ]
    monkeypatch.setattr(issued_keys, "KEYS_MAX", 2)
    for changes, code in [*refused, ({}, "too_many_keys")]:
        with pytest.raises(Unprocessable) as raised:
            make(services, member, **changes)
        assert raised.value.code == code
    assert make(services, manager).status == "active"


def a_project(project_id: str) -> Project:
    return Project(tenant="dinum", id=project_id, name=project_id)


def brought(number: int, **changes: Any) -> ImportedKey:
    digest = hashlib.sha256(f"secret {number}".encode()).hexdigest()
    return ImportedKey(**{"id": f"old-{number}", "name": "old", "prefix": "sk-", "sha256": digest, **changes})


def take(services: Services, *keys: ImportedKey, tenant: str = "dinum") -> Imported:
    with transaction(services.engine, actor=OPERATOR.actor) as connection:
        return import_keys(connection, tenant, keys)


def test_a_gateways_keys_go_on_working_and_are_taken_over_once(services) -> None:
    member = agent(services)
    keys = [brought(1, account=member.account), brought(2, expires_at=NOW + DAY), brought(3)]
    assert take(services, *keys[:2]) == Imported(added=2, known=0)
    assert take(services, *keys, keys[2]) == Imported(added=1, known=3)
    assert [said(services, f"secret {number}") for number in (1, 2, 3)] == ["old-1", "old-2", "old-3"]
    assert said(services, "secret 2", NOW + DAY) == "invalid_key"
    with transaction(services.engine, actor=member.actor) as connection:
        assert [one.id for one in list_keys(connection, "dinum", member, now=NOW)] == ["old-1"]
        change_key(connection, "dinum", member, "old-1", {"name": "renamed"}, now=NOW)
        revoke_key(connection, "dinum", member, "old-1", now=NOW)
    assert take(services, *keys) == Imported(added=0, known=3)
    assert said(services, "secret 1") == "invalid_key"


def test_keys_that_are_anothers_are_told_by_place_and_nothing_is_taken(services) -> None:
    take(services, brought(1), brought(2))
    conflicts = [
        brought(3),
        brought(1, id="other"),
        brought(4, id="old-2"),
        brought(5),
        brought(6, id="old-5"),
        brought(5, id="old-6"),
    ]
    with pytest.raises(Conflict) as refused:
        take(services, *conflicts)
    assert refused.value.field == "keys[1], keys[2], keys[4], keys[5]"
    with pytest.raises(Conflict) as refused:
        take(services, brought(1), tenant="sante")
    assert refused.value.field == "keys[0]"
    for name in ("project", "account"):
        with pytest.raises(Unprocessable) as unknown:
            take(services, brought(7), brought(8, **{name: "unknown"}))
        assert unknown.value.field == "keys[1]"
    assert said(services, "secret 3") == said(services, "secret 7") == "invalid_key"
    with pytest.raises(Conflict) as many:
        take(services, *[brought(number, id=f"new-{number}") for number in [1] * 30])
    assert (many.value.field or "").endswith("keys[19], …")


def told(services: Services, subject: str = "key_expiring") -> list[tuple[str, int]]:
    """Who was told of which step, in order."""
    with services.engine.connect() as connection:
        query = "SELECT recipient, split_part(key, '/', 5)::int FROM outbox WHERE subject = :subject ORDER BY number"
        return [(row[0], row[1]) for row in connection.execute(sa.text(query), {"subject": subject})]


def test_the_end_of_a_key_is_told_to_its_holder_at_each_step_once(services) -> None:
    member, manager = agent(services), agent(services, "manager")
    make(services, member, name="own", expires_at=NOW + 40 * DAY)
    make(services, manager, name="program", expires_at=NOW + 40 * DAY, for_program=True)
    make(services, member, name="later", expires_at=NOW + 300 * DAY)
    gone = make(services, member, name="gone", expires_at=NOW + 40 * DAY)
    with transaction(services.engine, actor=member.actor) as connection:
        revoke_key(connection, "dinum", member, gone.id, now=NOW)
    days = [announce_expiring_keys(services.engine, NOW + day * DAY) for day in (9, 10, 11, 32, 33, 34, 39, 40, 41)]
    assert days == [0, 2, 0, 0, 2, 0, 2, 0, 0]
    holders = [f"account:{member.account}", "managers:dinum"]
    assert sorted(told(services)) == sorted((one, step) for one in holders for step in (30, 7, 1))
    assert sorted(step for _, step in told(services, "key.expiring")) == [1, 1, 7, 7, 30, 30]


def test_a_key_whose_end_was_moved_is_told_again_and_missed_steps_are_not_made_up(services) -> None:
    member = agent(services)
    key = make(services, member, name="own", expires_at=NOW + 5 * DAY)
    assert announce_expiring_keys(services.engine, NOW) == 1
    with transaction(services.engine, actor=member.actor) as connection:
        change_key(connection, "dinum", member, key.id, {"expires_at": NOW + 100 * DAY}, now=NOW)
    assert [announce_expiring_keys(services.engine, NOW + day * DAY) for day in (1, 94)] == [0, 1]
    assert [step for _, step in told(services)] == [7, 7]


def test_nobody_is_told_whose_account_or_administration_is_suspended(services) -> None:
    member, other = agent(services), agent(services)
    for one in (member, other):
        make(services, one, name="own", expires_at=NOW + 5 * DAY)
    with transaction(services.engine) as connection:
        suspend_account(connection, OPERATOR, "dinum", member.account or "", "abuse", now=NOW)
    assert announce_expiring_keys(services.engine, NOW) == 1
    with transaction(services.engine) as connection:
        suspend_tenant(connection, "dinum", "unpaid", now=NOW)
    assert announce_expiring_keys(services.engine, NOW + 4 * DAY) == 0


def test_an_invalid_key_is_unauthorized_and_a_suspended_one_forbidden(services) -> None:
    member = agent(services)
    secret = make(services, member).secret
    with pytest.raises(Unauthorized):
        check_key(services.catalog.refresh(), digest_of("other"), NOW)
    with transaction(services.engine) as connection:
        suspend_account(connection, OPERATOR, "dinum", member.account or "", "abuse", now=NOW)
    with pytest.raises(Forbidden):
        check_key(services.catalog.refresh(), digest_of(secret), NOW)


def test_keys_that_were_made_and_revoked_today_count_as_well(services: Services, monkeypatch) -> None:
    """Every process remembers every key: a loop must not fill its memory."""
    monkeypatch.setattr(issued_keys, "KEYS_MAX", 2)
    caller = agent(services)
    for _ in range(2):
        key = make(services, caller)
        with transaction(services.engine, actor=caller.actor) as connection:
            revoke_key(connection, "dinum", caller, key.id, now=NOW)
    with pytest.raises(Unprocessable, match="too many keys"):
        make(services, caller)
    with transaction(services.engine) as connection:
        connection.execute(api_key.update().values(created_at=NOW - DAY))
    assert make(services, caller).status == "active"


def test_keys_made_at_once_are_as_few_as_may_be(services: Services, monkeypatch) -> None:
    monkeypatch.setattr(issued_keys, "KEYS_MAX", 3)
    caller = agent(services)
    refused: list[str] = []

    def work() -> None:
        try:
            make(services, caller)
        except Unprocessable as error:
            refused.append(error.code)

    run_threads([work] * 8)
    assert refused == ["too_many_keys"] * 5


def test_tokens_of_one_name_made_at_once_are_one(services: Services) -> None:
    caller = agent(services)
    assert caller.tenant is not None
    assert caller.account is not None
    tenant_id, account_id, codes = caller.tenant, caller.account, []

    def own() -> None:
        with transaction(services.engine, actor=caller.actor) as connection:
            add_own_token(connection, tenant_id, account_id, "phone", expires_at=NOW + DAY, now=NOW)

    def of_service() -> None:
        add_token(services.engine, "gateway", "gateway")

    def work(make_one: Any) -> None:
        try:
            make_one()
        except Conflict as error:
            codes.append(error.code)

    run_threads([partial(work, make_one) for make_one in (own, of_service) for _ in range(4)])
    assert codes == ["token_exists"] * 6
