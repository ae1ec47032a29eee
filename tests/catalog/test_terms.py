"""Accepting terms, and asking for it on the hot path."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from metering.catalog import documents
from metering.catalog.kinds import KINDS, put
from metering.catalog.terms import DemandsInForce, accept
from metering.database import transaction
from metering.errors import NotFound, Unprocessable
from metering.identity import Principal
from metering.services import Services
from tests.people import add_agent

NOW = datetime(2026, 10, 5, 8, tzinfo=UTC)
DAY = timedelta(days=1)
TEXTS = {"title_fr": "T", "title_en": "T", "text_fr": "Texte", "text_en": "Text"}


def terms(version: str, effective_at: datetime, enforced_at: datetime) -> documents.Terms:
    return documents.Terms(
        document="terms", version=version, effective_at=effective_at, enforced_at=enforced_at, **TEXTS
    )  # fmt: skip


def publish(services: Services, *versions: documents.Terms) -> None:
    with transaction(services.engine) as connection:
        for version in versions:
            put(connection, KINDS["terms"], msgspec.convert(version, documents.Terms))
    services.catalog.refresh()


def accepted(services: Services, caller: Principal, version: str, now: datetime) -> Any:
    with transaction(services.engine, actor=caller.actor) as connection:
        return accept(connection, services.catalog.current(), caller, ("terms", version), now)


def test_a_current_or_coming_version_is_accepted_once_and_a_replaced_one_not(services) -> None:
    publish(
        services,
        terms("1", NOW - 9 * DAY, NOW - 9 * DAY),
        terms("2", NOW - DAY, NOW + DAY),
        terms("3", NOW + DAY, NOW + 2 * DAY),
    )
    account, _token = add_agent(services, "dinum")
    caller = Principal("t", "member", "dinum", account)
    assert accepted(services, caller, "2", NOW) == NOW
    assert accepted(services, caller, "2", NOW + DAY) == NOW
    assert accepted(services, caller, "3", NOW) == NOW
    with pytest.raises(Unprocessable, match="replaced"):
        accepted(services, caller, "1", NOW)
    with pytest.raises(NotFound):
        accepted(services, caller, "4", NOW)
    with services.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM acceptance")) == 2


def test_what_is_demanded_changes_at_its_instant_and_with_a_publication() -> None:
    one, two = terms("1", NOW, NOW), terms("2", NOW + DAY, NOW + 2 * DAY)
    known, more = (one,), (one, two)
    asked = DemandsInForce()
    assert asked.at(known, NOW - DAY) == ()
    (first,) = asked.at(known, NOW)
    assert asked.at(known, NOW) is asked.at(known, NOW + 99 * DAY)
    assert first.met_by == {("terms", "1")}
    assert asked.at(known, NOW - DAY) == ()  # a clock that is set back
    days = [asked.at(more, NOW + day * DAY)[0] for day in (0, 1, 2)]
    assert [day.met_by for day in days] == [{("terms", "1"), ("terms", "2")}] * 2 + [{("terms", "2")}]
    assert [day.current for day in days] == [("terms", "1"), ("terms", "2"), ("terms", "2")]
