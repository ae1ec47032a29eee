"""Requests for a higher limit against a real database: the study, the decision, and who is told."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from metering.catalog import documents
from metering.catalog.kinds import KINDS, put
from metering.catalog.limits import limits_for_request
from metering.catalog.overrides import Grant, add_override, end_override, list_overrides
from metering.catalog.raises import (
    Asked,
    Decision,
    RaiseRequest,
    ask_raise,
    decide_raise,
    find_raise,
    list_raises,
    withdraw_raise,
)
from metering.catalog.studies import read_study
from metering.database import transaction
from metering.errors import Conflict, Forbidden, JaugeError, NotFound, Unprocessable
from metering.events.decoding import decode
from metering.identity import Principal
from metering.rules.limits import Limit, Request
from metering.rules.studies import PeakHour, Study
from metering.services import Services
from metering.tables import catalog_change, outbox, raise_request
from tests.conftest import ndjson
from tests.people import add_agent

NOON = datetime(2026, 11, 5, 11, tzinfo=UTC)
DAY = timedelta(days=1)
OPERATOR = Principal("operator", "operator")
REQUESTS_BY_DAY = documents.Limit(scope="user", selector="model:*", meter="requests", window="day", value=5_000)


@pytest.fixture
def member(services: Services) -> Principal:
    account, _token = add_agent(services, "dinum", account_id="u-1")
    return Principal("u-1-token", "member", "dinum", account)


@pytest.fixture
def manager(services: Services) -> Principal:
    account, _token = add_agent(services, "dinum", "manager", account_id="u-2")
    return Principal("u-2-token", "manager", "dinum", account)


def wanted(**changes: Any) -> documents.Limit:
    """The limit asked for, with changes."""
    return msgspec.structs.replace(REQUESTS_BY_DAY, **changes)


def ask(services: Services, caller: Principal, **changes: Any) -> RaiseRequest:
    asked = Asked(changes.get("limit", REQUESTS_BY_DAY), changes.get("subject"), "Many documents to read.")
    return ask_raise(services.engine, services.catalog.refresh(), caller, asked, changes.get("now", NOON))


def decide(services: Services, request: RaiseRequest, *, now: datetime = NOON, **changes: Any) -> RaiseRequest:
    decision = Decision(**{"approved": True, "reason": "A fair use."} | changes)
    return decide_raise(services.engine, services.catalog.refresh(), OPERATOR, request.id, decision, now)


def value_for(services: Services, user: str, now: datetime) -> int | None:
    request = Request("dinum", user=user, model="m")
    limits = limits_for_request(services.catalog.refresh(), request, now)
    (limit,) = [one for one in limits if (one.meter, one.window) == ("requests", "day")]
    return limit.value


def told(services: Services) -> list[tuple[str, str, dict[str, Any]]]:
    columns = outbox.c.subject, outbox.c.recipient, outbox.c.payload
    with services.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(outbox.c.number))]


def refused(code: str, error: type[JaugeError], call: Any) -> None:
    with pytest.raises(error) as raised:
        call()
    assert raised.value.code == code


def test_an_approval_holds_at_once_for_the_one_who_asked_and_ends_when_it_says(services, member) -> None:
    request = ask(services, member)
    assert (request.subject, request.state, request.limit) == ("u-1", "pending", REQUESTS_BY_DAY)
    assert value_for(services, "u-1", NOON) == 1_000
    decided = decide(services, request, value=2_000, ends_at=NOON + DAY)
    assert (decided.state, decided.decided_by, decided.granted.value) == ("approved", "operator:operator", 2_000)
    moments = [NOON, NOON + DAY - timedelta(seconds=1), NOON + DAY]
    assert [value_for(services, "u-1", moment) for moment in moments] == [2_000, 2_000, 1_000]
    assert value_for(services, "u-9", NOON) == 1_000


def test_a_grant_may_begin_later_and_be_without_limit(services, manager) -> None:
    request = ask(services, manager)
    decide(services, request, value=None, starts_at=NOON + DAY)
    assert [value_for(services, "u-9", NOON + days * DAY) for days in (0, 1, 400)] == [1_000, None, None]


def test_a_refusal_changes_no_limit_and_a_decision_is_taken_once(services, member) -> None:
    request = ask(services, member)
    decided = decide(services, request, approved=False, reason="The free tier is full.")
    assert (decided.state, decided.decision_reason, decided.granted) == ("refused", "The free tier is full.", None)
    assert value_for(services, "u-1", NOON) == 1_000
    refused("already_decided", Conflict, lambda: decide(services, request))
    assert ask(services, member).state == "pending"


def all_at_once(services: Services, calls: list[Callable[[], RaiseRequest]], held: sa.Executable) -> list[str]:
    """What came of calls, all of which wait for the lock that a statement takes before any goes on."""
    services.catalog.refresh()

    def attempt(call: Callable[[], RaiseRequest]) -> str:
        try:
            return call().state
        except Conflict as error:
            return error.code

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(len(calls)) as pool:
        with transaction(services.engine) as holding:
            holding.execute(held)
            futures = [pool.submit(attempt, call) for call in calls]
            deadline = time.monotonic() + 20
            while holding.scalar(sa.text(waiting)) != len(calls):
                assert time.monotonic() < deadline
                holding.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
        return sorted(future.result() for future in futures)


def test_of_those_who_decide_at_once_one_decides(services, member) -> None:
    request = ask(services, member)
    calls = [partial(decide, services, request, value=2_000 + number) for number in range(3)]
    row = sa.select(raise_request).with_for_update()
    assert all_at_once(services, calls, row) == ["already_decided", "already_decided", "approved"]
    with transaction(services.engine) as connection:
        assert len(list_overrides(connection, "dinum", after=None, limit=10)) == 1


def test_of_those_who_ask_for_the_same_at_once_one_waits_and_the_others_are_told(services, manager) -> None:
    calls = [partial(ask, services, manager, limit=wanted(value=value)) for value in range(2_000, 2_003)]
    catalogue = sa.select(sa.func.pg_advisory_xact_lock(sa.text("x'4A415543'::bigint")))
    assert all_at_once(services, calls, catalogue) == ["already_pending", "already_pending", "pending"]
    assert ask(services, manager, subject="u-2").state == "pending"


def test_who_asks_and_who_decides_is_told_without_what_was_written(services, member) -> None:
    request = ask(services, member)
    limit = msgspec.to_builtins(REQUESTS_BY_DAY)
    whom = {"request": request.id, "tenant": "dinum"}
    concerned = whom | {"account": "u-1", "subject": "u-1", "limit": limit}
    assert told(services) == [
        ("raise_received", "operators", whom),
        ("raise.requested", "webhooks:dinum", concerned),
    ]
    decide(services, request, value=2_000, ends_at=NOON + DAY)
    result = {"state": "approved", "value": 2_000, "ends_at": "2026-11-06T11:00:00Z"}
    assert told(services)[2:] == [
        ("raise_decided", "account:u-1", result | {"rule": limit, "reason": "A fair use."}),
        ("raise.decided", "webhooks:dinum", result | concerned),
    ]


def test_who_asked_takes_a_request_back_until_it_is_decided_and_nobody_else_does(services, member, manager) -> None:
    request = ask(services, member)
    for other in (manager, Principal("x", "manager", "sante", "u-1")):
        with pytest.raises(NotFound):
            withdraw_raise(services.engine, other, request.id, NOON)
    withdraw_raise(services.engine, member, request.id, NOON)
    with transaction(services.engine, actor=member.actor) as connection:
        (found,) = list_raises(connection, tenant="dinum", account="u-1")
        assert list_raises(connection, state="pending") == []
    assert (found.state, found.decided_at, found.decided_by) == ("withdrawn", NOON, member.actor.author)
    assert (found.decision_reason, found.granted) == (None, None)
    assert value_for(services, "u-1", NOON) != REQUESTS_BY_DAY.value
    subject, recipient, payload = told(services)[-1]
    assert (subject, recipient, payload["state"]) == ("raise.decided", "webhooks:dinum", "withdrawn")
    with pytest.raises(Conflict):
        withdraw_raise(services.engine, member, request.id, NOON)
    with pytest.raises(Conflict):
        decide(services, request)
    decided = decide(services, ask(services, member))
    with pytest.raises(Conflict):
        withdraw_raise(services.engine, member, decided.id, NOON)


def test_an_administration_changes_nothing_else_of_a_request(services, member, manager) -> None:
    """Whatever a program of ours did wrong: the database says so."""
    waiting, decided = ask(services, member), decide(services, ask(services, manager))

    def changed(request: RaiseRequest, **values: str) -> int:
        with transaction(services.engine, actor=member.actor) as connection:
            own = raise_request.c.id == request.id
            return connection.execute(raise_request.update().where(own).values(values)).rowcount

    with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
        changed(waiting, state="approved")
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        changed(waiting, state="withdrawn", motive="Another.")
    assert changed(decided, state="withdrawn") == 0
    with transaction(services.engine) as connection:
        assert [find_raise(connection, one.id) for one in (waiting, decided)] == [waiting, decided]


def test_what_people_wrote_stays_out_of_the_record_of_changes(services, member) -> None:
    decide(services, ask(services, member))
    with services.engine.connect() as connection:
        recorded = [str(row) for row in connection.execute(sa.select(catalog_change))]
    assert any("raise_request" in row for row in recorded)
    assert not [row for row in recorded if "Many documents" in row or "A fair use" in row]


def test_what_is_no_raise_or_not_ones_own_is_refused(services, member) -> None:
    cases = [
        ({"value": 1_000}, "not_a_raise", Unprocessable), ({"value": 10}, "not_a_raise", Unprocessable),
        ({"meter": "pages"}, "not_a_raise", Unprocessable),
        ({"selector": "model:words"}, "unknown_reference", Unprocessable),
        ({"selector": "category:words"}, "unknown_reference", Unprocessable),
        ({"selector": "operation:words"}, "unknown_reference", Unprocessable),
        ({"scope": "tenant"}, "not_yours", Forbidden), ({"scope": "key"}, "not_yours", Forbidden),
    ]  # fmt: skip
    for changes, code, error in cases:
        refused(code, error, partial(ask, services, member, limit=wanted(**changes)))
    assert told(services) == []


def test_a_member_asks_for_their_own_account_only(services, member) -> None:
    refused("not_yours", Forbidden, lambda: ask(services, member, subject="u-2"))
    assert ask(services, member, subject="u-1").subject == "u-1"


def test_a_subject_is_one_of_the_scope_and_of_the_administration(services, manager) -> None:
    add_agent(services, "education", account_id="u-far")
    for scope, subject in [("tenant", "dinum"), ("user", "u-far"), ("project", "u-2"), ("key", "u-2")]:
        asking = partial(ask, services, manager, limit=wanted(scope=scope), subject=subject)
        refused("unknown_subject", Unprocessable, asking)


def test_a_raise_keeps_the_mode_of_the_limit_in_force(services, manager) -> None:
    grant = Grant("dinum", wanted(value=2_000, mode="soft"), None, None, None, "Soft.", "operator:operator")
    with transaction(services.engine) as connection:
        add_override(connection, grant, NOON)
    assert ask(services, manager).limit.mode == "soft"


def test_a_decision_that_makes_no_sense_decides_nothing(services, member) -> None:
    request = ask(services, member)
    cases = [
        ({"value": 1_000}, "not_a_raise"), ({"ends_at": NOON}, "invalid_period"),
        ({"starts_at": NOON - DAY}, "invalid_period"),
        ({"starts_at": NOON + DAY, "ends_at": NOON + DAY}, "invalid_period"),
        ({"approved": False, "value": 2_000}, "nothing_granted"),
        ({"approved": False, "ends_at": NOON + DAY}, "nothing_granted"),
    ]  # fmt: skip
    for changes, code in cases:
        refused(code, Unprocessable, partial(decide, services, request, **changes))
    with transaction(services.engine, actor=member.actor) as connection:
        assert find_raise(connection, request.id) == request


def test_requests_are_listed_by_pages_and_found_only_where_they_belong(services, member, manager) -> None:
    made = [ask(services, manager, limit=wanted(window=window, value=10**10)) for window in ("minute", "day")]
    made.append(ask(services, member))
    decide(services, made[0], approved=False)
    with transaction(services.engine, actor=manager.actor) as connection:
        ids = [one.id for one in list_raises(connection)]
        assert ids == [one.id for one in made]
        assert [one.id for one in list_raises(connection, limit=1, after=ids[0])] == ids[1:2]
        assert [one.id for one in list_raises(connection, account="u-1")] == ids[2:]
        assert [one.id for one in list_raises(connection, state="pending")] == ids[1:]
        assert list_raises(connection, after="words") == []
        with pytest.raises(NotFound):
            find_raise(connection, ids[0], account="u-1")
    with transaction(services.engine, actor=Principal("x", "manager", "education", "u-x").actor) as connection:
        assert list_raises(connection) == []
        with pytest.raises(NotFound):
            find_raise(connection, ids[0])


def test_an_override_that_is_ended_stays_listed_and_holds_no_longer(services) -> None:
    with transaction(services.engine) as connection:
        grants = [Grant("dinum", wanted(value=9), None, start, None, "Why.", "who") for start in (NOON, NOON + DAY)]
        now, later = (add_override(connection, grant, NOON) for grant in grants)
        end_override(connection, "dinum", now.id, NOON + timedelta(hours=1))
        end_override(connection, "dinum", now.id, NOON + timedelta(hours=9))
        end_override(connection, "dinum", later.id, NOON + timedelta(hours=1))
        with pytest.raises(NotFound):
            end_override(connection, "education", now.id, NOON)
        ends = {one.id: one.ends_at for one in list_overrides(connection, "dinum", after=None, limit=10)}
    assert ends == {now.id: NOON + timedelta(hours=1), later.id: NOON + DAY}
    moments = [NOON, NOON + timedelta(hours=1), NOON + 2 * DAY]
    assert [value_for(services, "u-1", moment) for moment in moments] == [9, 1_000, 1_000]


# The study

CATEGORIES = {"m-1": "text", "m-2": "text", "m-3": "vectors"}
HISTORY = [
    (before, user, model, operation, tokens)
    for before, (user, model, operation) in itertools.product(
        (0, 1, 8, 29, 30),
        [
            ("u-1", "m-1", "chat"),
            ("u-1", "m-2", "chat"),
            ("u-2", "m-1", "chat"),
            ("u-2", "m-3", "embedding"),
            (None, "m-4", "chat"),
        ],
    )
    for tokens in (10 + before, None if model == "m-2" else 100 * before)
]
"""Two events a day and counter: some without a user, of a model without a category; the last day is beyond a study."""


@pytest.fixture
def history(services: Services, make_event: Any) -> Services:
    events = [
        make_event(
            time=(NOON - before * DAY).isoformat(), started_at=None, user=user, model_served=model, operation=operation,
            input_tokens=tokens, output_tokens=None if operation == "embedding" else 5,
            status="refused" if tokens == 0 else "ok",
        )
        for before, user, model, operation, tokens in HISTORY
    ]  # fmt: skip
    assert services.intake.take(decode(ndjson(events), "ndjson", 1_000), "http").is_whole
    with transaction(services.engine) as connection:
        for category in sorted(set(CATEGORIES.values())):
            put(connection, KINDS["categories"], documents.Category(id=category, name=category))
        for model, category in CATEGORIES.items():
            put(
                connection, KINDS["models"],
                documents.Model(id=model, name=model, category=category, publisher="P", licence="Apache-2.0"),
            )  # fmt: skip
    return services


def study(services: Services, **changes: Any) -> Study:
    limit = Limit(
        **{"scope": "tenant", "selector": "*", "meter": "input_tokens", "window": "day", "value": 3_000, "mode": "hard"}
        | changes
    )
    with transaction(services.engine, snapshot=True) as connection:
        return read_study(connection, services.catalog.refresh(), "dinum", limit, limit, NOON)


STUDIED = [
    ({}, lambda user, model, operation: "dinum"),
    ({"scope": "user"}, lambda user, model, operation: user),
    ({"scope": "user", "subject": "u-1"}, lambda user, model, operation: user if user == "u-1" else None),
    ({"selector": "model:*"}, lambda user, model, operation: model),
    ({"selector": "model:m-2"}, lambda user, model, operation: model if model == "m-2" else None),
    ({"selector": "category:*"}, lambda user, model, operation: CATEGORIES.get(model)),
    ({"selector": "category:text"}, lambda user, model, operation: "text" if CATEGORIES.get(model) == "text" else None),
    ({"selector": "operation:*"}, lambda user, model, operation: operation),
    ({"selector": "operation:chat"}, lambda user, model, operation: "chat" if operation == "chat" else None),
    ({"scope": "user", "selector": "model:*"}, lambda user, model, operation: (user, model) if user else None),
    ({"scope": "project", "subject": "assistant"}, lambda user, model, operation: "assistant"),
    ({"scope": "key", "selector": "category:*"}, lambda user, model, operation: CATEGORIES.get(model)),
    ({"meter": "embedding_requests"}, lambda user, model, operation: "all" if operation == "embedding" else None),
]  # fmt: skip
"""A limit, and the counter of it that an event counts for; None: it doesn't."""


def test_a_study_sums_the_counters_of_its_limit(history) -> None:
    for limit, counter_of in STUDIED:
        check_study(study(history, **limit), limit, counter_of)


def check_study(found: Study, limit: dict[str, str], counter_of: Any) -> None:
    """Compare a study with plain sums of the history."""
    days: dict[Any, int] = {}
    uncounted = requests = refused = 0
    for before, user, model, operation, tokens in HISTORY:
        counter = counter_of(user, model, operation)
        if counter is None or before == 30:
            continue
        requests, uncounted, refused = requests + 1, uncounted + (tokens is None), refused + (tokens == 0)
        value = 1 if limit.get("meter") == "embedding_requests" else tokens or 0
        days[before, counter] = days.get((before, counter), 0) + value
    assert found.total == sum(days.values())
    assert found.peak_day.value == max(days.values())
    assert (found.counters, found.days_with_use) == (len({counter for _day, counter in days}), 4)
    assert (found.requests, found.uncounted_requests, found.refused_requests) == (requests, uncounted, refused)
    assert found.last_7_days == sum(value for (before, _counter), value in days.items() if before == 1)
    assert found.previous_7_days == sum(value for (before, _counter), value in days.items() if before == 8)
    kept_by_hour = limit.get("scope", "tenant") in {"tenant", "project"}
    assert found.peak_hour == (PeakHour(NOON - 29 * DAY, max(days.values())) if kept_by_hour else None)


def test_tokens_in_all_are_those_in_and_out_as_far_as_known(history) -> None:
    both = study(history, meter="total_tokens").total
    assert both == study(history, meter="input_tokens").total + study(history, meter="output_tokens").total
    assert (
        study(history, meter="total_tokens", selector="model:m-3").total == study(history, selector="model:m-3").total
    )
    assert study(history, meter="output_tokens", selector="model:m-3").total is None


def test_a_study_of_another_administration_or_of_no_use_is_empty(history) -> None:
    assert study(history, scope="user", subject="u-9").days_with_use == 0
    assert study(history, meter="cost_neur").total is None
    limit = Limit("tenant", "*", "requests", "day", 5, "hard")
    with transaction(history.engine, snapshot=True) as connection:
        found = read_study(connection, history.catalog.refresh(), "education", limit, limit, NOON)
    assert (found.total, found.requests, found.as_of) == (0, 0, 1)
