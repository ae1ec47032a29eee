"""Requests for an account: what the platform's state makes of them, and what is left of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from metering.catalog import documents
from metering.catalog.access import (
    Decision,
    checked_email,
    decide,
    expire_requests,
    list_requests,
    release_delayed,
    request_access,
)
from metering.catalog.activation import activate
from metering.catalog.deciding import Asked
from metering.catalog.kinds import KINDS, put
from metering.catalog.tenants import add_tenant, suspend_tenant
from metering.database import transaction
from metering.errors import Conflict, Gone, JaugeError, NotFound, Unprocessable
from metering.services import Services
from tests.people import add_agent
from tests.threads import run_threads

NOW = datetime(2026, 10, 5, 8, tzinfo=UTC)
DAY = timedelta(days=1)
SIRET = "13002526500013"


def write(services: Services, kind: str, document: type[documents.Document], **fields: Any) -> None:
    with transaction(services.engine) as connection:
        put(connection, KINDS[kind], msgspec.convert(fields, document))


def set_platform(services: Services, **changes: Any) -> None:
    write(services, "platform", documents.Platform, **{"default_plan": "experimentation", **changes})


def asked(**changes: Any) -> Asked:
    fields: dict[str, Any] = {
        "kind": "individual",
        "organisation": "Ministère",
        "siret": None,
        "name": "Camille",
        "email": "camille@example.fr",
        "language": "fr",
        "motive": "Summaries",
        "experiment": None,
    }
    return Asked(**{**fields, **changes})


def ask(services: Services, now: datetime = NOW, **changes: Any) -> Any:
    return request_access(services.engine, services.master_key, asked(**changes), now)


def decided(services: Services, request_id: str, now: datetime = NOW, **decision: Any) -> Any:
    with transaction(services.engine) as connection:
        return decide(
            connection, services.master_key, request_id, Decision(**decision), author="operator:o", now=now
        )  # fmt: skip


def one(services: Services, request_id: str) -> Any:
    with transaction(services.engine) as connection:
        return next(each for each in list_requests(connection) if each.id == request_id)


def mails(services: Services, request_id: str) -> list[tuple[str, str | None]]:
    with services.engine.connect() as connection:
        query = "SELECT subject, payload ->> 'reason' FROM outbox WHERE recipient = :recipient ORDER BY number"
        rows = connection.execute(sa.text(query), {"recipient": f"access_request:{request_id}"})
        return [(row[0], row[1]) for row in rows]


def code_of(services: Services, request_id: str) -> str:
    return services.master_key.activation_code(request_id, one(services, request_id).code_expires_at)


def test_an_overload_delays_says_why_and_its_end_moves_everybody_on(services) -> None:
    reason = "Panne d’un centre de calcul"
    house = {"house_domains": ["house.example.fr"], "house_tenant": "dinum"}
    set_platform(services, overload="free", overload_reason=reason, **house)
    stranger, agent = ask(services), ask(services, email="a@house.example.fr")
    partner = ask(services, kind="partner", email="p@example.fr")
    assert [each.state for each in (stranger, agent, partner)] == ["delayed", "delayed", "pending"]
    assert stranger.reason == reason
    assert release_delayed(services.engine, services.master_key, NOW + DAY) == 0
    set_platform(services, **house)
    assert release_delayed(services.engine, services.master_key, NOW + DAY) == 2
    assert release_delayed(services.engine, services.master_key, NOW + DAY) == 0
    assert [one(services, each.id).state for each in (stranger, agent)] == ["pending", "approved"]
    assert mails(services, stranger.id) == [
        ("access_delayed", reason),
        ("access_received", None),
    ]
    assert [subject for subject, _ in mails(services, agent.id)] == ["access_delayed", "access_approved"]
    assert one(services, agent.id).code_expires_at == NOW + 8 * DAY


def test_the_house_waits_for_validation_where_its_administration_takes_nobody_in(services) -> None:
    set_platform(services, house_domains=["house.example.fr"], house_tenant="dinum")
    with transaction(services.engine) as connection:
        suspend_tenant(connection, "dinum", "moving", now=NOW)
    assert ask(services, email="a@house.example.fr").state == "pending"


def test_an_experiment_takes_in_by_its_phase_and_tells_why_not(services) -> None:
    add_tenant(services.engine, "listed", siret=SIRET)
    starts = [NOW + days * DAY for days in range(5)]
    phases = [
        {"phase": "restricted", "starts_at": starts[0], "ends_at": starts[1], "tenants": ["listed"]},
        {"phase": "open", "starts_at": starts[1], "ends_at": starts[2]},
        {"phase": "closing", "starts_at": starts[2], "ends_at": starts[3]},
    ]
    write(services, "experiments", documents.Experiment, id="trial", name="Trial", phases=phases)
    told = [
        (day, siret, answer.state, answer.reason)
        for day in (-1, 0, 1, 2, 3)
        for siret in (None, SIRET)
        for answer in [
            ask(services, NOW + day * DAY, experiment="trial", siret=siret, language="en", email=f"a{day}@example.fr")
        ]
    ]
    only_listed = "The experiment is for listed administrations only."
    closing = "The experiment is closing and takes nobody in any more."
    assert told == [
        (-1, None, "refused", "The experiment hasn't begun."),
        (-1, SIRET, "refused", "The experiment hasn't begun."),
        (0, None, "refused", only_listed),
        (0, SIRET, "pending", None),
        (1, None, "pending", None),
        (1, SIRET, "pending", None),
        (2, None, "refused", closing),
        (2, SIRET, "refused", closing),
        (3, None, "refused", "The experiment is over."),
        (3, SIRET, "refused", "The experiment is over."),
    ]
    in_french = "L’expérimentation est réservée aux administrations désignées."
    refused = ask(services, experiment="trial", email="b@example.fr")
    assert mails(services, refused.id) == [("access_refused", in_french)]
    with pytest.raises(Unprocessable, match="no such experiment"):
        ask(services, experiment="unknown")


def test_a_decision_is_taken_once_and_joins_an_active_administration(services) -> None:
    request = ask(services)
    with transaction(services.engine) as connection:
        suspend_tenant(connection, "sante", "unpaid", now=NOW)
    for tenant in (None, "unknown", "sante"):
        with pytest.raises(Unprocessable) as refused:
            decided(services, request.id, approved=True, tenant=tenant)
        assert (refused.value.code, refused.value.field) == ("unknown_tenant", "tenant")
    assert decided(services, request.id, approved=True, tenant="dinum").state == "approved"
    for approved in (True, False):
        with pytest.raises(Conflict, match="has been decided"):
            decided(services, request.id, approved=approved, tenant="dinum")
    with pytest.raises(NotFound):
        decided(services, "unknown", approved=False)


def test_a_partners_first_account_manages_unless_said_otherwise(services) -> None:
    add_agent(services, "sante", "manager")
    asking = [("partner", "dinum", None), ("partner", "sante", None), ("individual", "dinum", None)]
    asking += [("partner", "finances", "member"), ("individual", "finances", "manager")]
    roles = []
    for kind, to, role in asking:
        request = ask(services, kind=kind, email=f"{len(roles)}@example.fr")
        roles.append(decided(services, request.id, approved=True, tenant=to, role=role).role)
    assert roles == ["manager", "member", "member", "member", "manager"]


def test_unused_codes_end_and_who_was_refused_or_never_came_is_forgotten(services) -> None:
    unused, refused, waiting, used = (ask(services, email=f"{name}@example.fr") for name in "abcd")
    for each in (unused, used):
        decided(services, each.id, approved=True, tenant="dinum")
    decided(services, refused.id, approved=False, reason="no use")
    assert mails(services, refused.id)[-1] == ("access_refused", "no use")
    activate(services.engine, code_of(services, used.id), NOW + DAY)
    assert one(services, used.id).email is None
    code = code_of(services, unused.id)

    assert expire_requests(services.engine, NOW + 7 * DAY - timedelta(seconds=1)) == 0
    assert expire_requests(services.engine, NOW + 7 * DAY) == 1
    with pytest.raises(Gone, match="expired"):
        activate(services.engine, code, NOW + 7 * DAY)
    assert expire_requests(services.engine, NOW + 30 * DAY) == 1
    left = [one(services, each.id) for each in (unused, refused, waiting)]
    assert {each.id: (each.state, each.email) for each in left} == {
        unused.id: ("expired", "a@example.fr"),
        refused.id: ("refused", None),
        waiting.id: ("pending", "c@example.fr"),
    }
    assert expire_requests(services.engine, NOW + 37 * DAY) == 1
    assert (one(services, unused.id).name, one(services, unused.id).motive) == (None, "")
    assert expire_requests(services.engine, NOW + 37 * DAY) == 0


def test_a_code_that_is_shown_many_times_at_once_opens_one_account(services) -> None:
    request = ask(services)
    decided(services, request.id, approved=True, tenant="dinum")
    code = code_of(services, request.id)

    answers = []

    def show() -> None:
        try:
            answers.append(activate(services.engine, code, NOW).account)
        except JaugeError as error:
            answers.append(error.code)

    run_threads([show] * 4)
    assert sorted(answers)[:3] == ["code_used"] * 3
    with services.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM account")) == 1


def test_an_address_is_kept_in_its_normal_form() -> None:
    assert checked_email("Camille.D@Example.FR") == "Camille.D@example.fr"
    assert checked_email("camille@économie.example.fr") == "camille@xn--conomie-9xa.example.fr"
