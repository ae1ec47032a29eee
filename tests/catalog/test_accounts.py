"""Who manages an administration, who suspends whom, and that somebody always manages those who remain."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from metering.catalog.accounts import (
    delete_account,
    list_accounts,
    restore_account,
    set_role,
    suspend_account,
)
from metering.catalog.issued_keys import KeyAsked, create_key
from metering.catalog.own_tokens import TOKENS_MAX, add_own_token
from metering.catalog.tenants import add_tenant
from metering.database import transaction
from metering.errors import Conflict, Forbidden, JaugeError, NotFound, Unprocessable
from metering.identity import Principal
from metering.services import Services
from tests.people import add_agent
from tests.threads import run_threads

NOW = datetime(2026, 10, 5, 8, tzinfo=UTC)
OPERATOR = Principal("operator", "operator")


def agent(services: Services, role: Any = "member", tenant: str = "dinum") -> Principal:
    account, _token = add_agent(services, tenant, role)
    return Principal(f"{account}-token", role, tenant, account)


def do(services: Services, action: Any, caller: Principal, target: Principal, *args: Any, **more: Any) -> Any:
    with transaction(services.engine, actor=caller.actor) as connection:
        return action(connection, caller, "dinum", target.account, *args, **more)


def statuses(services: Services) -> dict[str, tuple[str, str]]:
    with transaction(services.engine) as connection:
        return {one.id: (one.role, one.status) for one in list_accounts(connection, "dinum")}


def test_two_managers_who_delete_each_other_at_once_leave_one(services) -> None:
    for members in (0, 1):
        first, second = agent(services, "manager"), agent(services, "manager")
        for _ in range(members):
            agent(services)
        answers: list[str] = []

        def delete(caller: Principal, target: Principal, answers: list[str] = answers) -> None:
            try:
                do(services, delete_account, caller, target, now=NOW)
                answers.append("deleted")
            except JaugeError as error:
                answers.append(error.code)

        run_threads([partial(delete, first, second), partial(delete, second, first)])
        assert sorted(answers) == ["deleted", "not_a_manager"]
        left = [one for one in (first, second) if statuses(services)[one.account or ""][1] == "active"]
        assert len(left) == 1
        do(services, delete_account, OPERATOR, left[0], now=NOW)


def test_somebody_manages_those_who_remain(services) -> None:
    manager, member = agent(services, "manager"), agent(services)
    for leaving in (
        lambda: do(services, delete_account, manager, manager, now=NOW),
        lambda: do(services, suspend_account, manager, manager, "r", now=NOW),
        lambda: do(services, set_role, manager, manager, "member"),
    ):
        with pytest.raises(Conflict) as refused:
            leaving()
        assert refused.value.code == "last_manager"
    suspended = agent(services, "manager")
    do(services, suspend_account, manager, suspended, "r", now=NOW)
    with pytest.raises(Conflict):
        do(services, set_role, manager, manager, "member")
    assert do(services, set_role, manager, member, "manager").role == "manager"
    do(services, delete_account, manager, manager, now=NOW)
    assert statuses(services)[member.account or ""] == ("manager", "active")
    do(services, delete_account, OPERATOR, member, now=NOW)


def test_the_last_one_may_leave_but_not_stay_without_managing(services) -> None:
    alone = agent(services, "manager")
    with pytest.raises(Conflict):
        do(services, set_role, alone, alone, "member")
    do(services, delete_account, alone, alone, now=NOW)
    assert statuses(services) == {alone.account: ("manager", "deleted")}


def test_a_caller_who_manages_no_more_is_refused_whatever_the_token_said(services) -> None:
    manager, demoted, target = agent(services, "manager"), agent(services, "manager"), agent(services)
    do(services, set_role, manager, demoted, "member")
    with pytest.raises(Forbidden, match="doesn't manage"):
        do(services, delete_account, demoted, target, now=NOW)


def test_who_was_made_a_member_does_not_take_the_role_back(services) -> None:
    """With a token that a process still believes to be a manager's."""
    agent(services, "manager")
    former = agent(services, "manager")
    do(services, set_role, OPERATOR, former, "member")
    for action, more in [(set_role, ("manager",)), (suspend_account, ("tired",)), (restore_account, ())]:
        with pytest.raises(Forbidden) as refused:
            do(services, action, former, former, *more, **({"now": NOW} if action is suspend_account else {}))
        assert refused.value.code == "not_a_manager"
    assert statuses(services)[str(former.account)] == ("member", "active")
    do(services, delete_account, former, former, now=NOW)


def test_no_manager_ends_what_an_operator_suspended(services) -> None:
    manager, target = agent(services, "manager"), agent(services)
    do(services, suspend_account, manager, target, "away", now=NOW)
    do(services, restore_account, manager, target)
    assert statuses(services)[target.account or ""][1] == "active"
    shown = do(services, suspend_account, OPERATOR, target, "abuse", now=NOW)
    assert (shown.status_reason, shown.suspended_by) == ("abuse", "operator")
    for action, args in (
        (restore_account, {}),
        (suspend_account, {"reason": "away", "now": NOW}),
        (delete_account, {"now": NOW}),
    ):
        with pytest.raises(Forbidden) as refused:
            do(services, action, manager, target, **args)
        assert refused.value.code == "suspended_by_operator"
    do(services, restore_account, OPERATOR, target)
    assert statuses(services)[target.account or ""][1] == "active"


def test_another_administrations_account_is_out_of_reach_even_past_the_door(services) -> None:
    manager, other = agent(services, "manager"), agent(services, tenant="sante")
    with transaction(services.engine, actor=manager.actor) as connection:
        assert list_accounts(connection, "sante") == []
        with pytest.raises(NotFound):
            delete_account(connection, manager, "sante", other.account or "", now=NOW)


def test_a_deleted_account_is_unknown_and_shows_nobody(services) -> None:
    manager, target = agent(services, "manager"), agent(services)
    do(services, delete_account, manager, target, now=NOW)
    with pytest.raises(NotFound):
        do(services, delete_account, manager, target, now=NOW)
    with transaction(services.engine, actor=manager.actor) as connection:
        shown = next(one for one in list_accounts(connection, "dinum") if one.id == target.account)
    assert (shown.status, shown.name, shown.email) == ("deleted", None, None)


def test_a_deleted_accounts_keys_and_tokens_are_revoked_and_it_is_told(services) -> None:
    manager, target = agent(services, "manager"), agent(services)
    for one in (manager, target):
        with transaction(services.engine, actor=one.actor) as connection:
            create_key(connection, one.tenant, one, KeyAsked("k", None, None, for_program=False), now=NOW)
    do(services, delete_account, manager, target, now=NOW)
    with services.engine.connect() as connection:
        for table in ("api_key", "token"):
            revoked = connection.execute(sa.text(f"SELECT account, revoked_at FROM {table}")).all()
            assert dict(tuple(row) for row in revoked) == {manager.account: None, target.account: NOW}
        told = connection.scalars(sa.text("SELECT subject FROM outbox ORDER BY subject")).all()
    assert told == ["account.deleted", "account_deleted", "key.created", "key.created", "key.revoked"]


def test_an_account_has_so_many_tokens_at_most(services) -> None:
    member = agent(services)
    assert member.account is not None
    later = NOW.replace(year=2027)
    with transaction(services.engine, actor=member.actor) as connection:
        for number in range(TOKENS_MAX - 1):
            add_own_token(connection, "dinum", member.account, f"t{number}", expires_at=later, now=NOW)
        with pytest.raises(Unprocessable) as refused:
            add_own_token(connection, "dinum", member.account, "more", expires_at=later, now=NOW)
        assert refused.value.code == "too_many_tokens"


def test_an_administration_is_registered_with_its_siret(services) -> None:
    siret = "13002526500013"
    added = add_tenant(services.engine, "new", "New", siret)
    assert add_tenant(services.engine, "new", "New", siret) == added
    refused = [
        ("new", "12002701600563", Conflict),
        ("other", siret, Conflict),
        ("other", "13002526500012", Unprocessable),
    ]
    for tenant, number, error in refused:
        with pytest.raises(error) as raised:
            add_tenant(services.engine, tenant, siret=number)
        assert raised.value.field == "siret"
