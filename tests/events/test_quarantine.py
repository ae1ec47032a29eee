"""What is kept of a refused event, and how it comes back."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.catalog.tenants import add_tenant
from metering.errors import Unprocessable
from metering.events.decoding import decode_one
from metering.events.intake import replay
from metering.events.quarantine import WITHHELD, dismiss, list_quarantined, salvage
from metering.services import Services


def refuse(services: Services, *events: object) -> list[int]:
    """Offer events that are refused; their numbers in quarantine."""
    before = {item.number for item in list_quarantined(services.engine)}
    answer = services.intake.take([decode_one(json.dumps(event).encode()) for event in events], "http")
    assert answer.rejected == len(events)
    return [item.number for item in list_quarantined(services.engine) if item.number not in before]


def test_only_well_formed_known_fields_are_kept(make_event) -> None:
    event = make_event(user="two words", prompt="words", input_tokens="many", output_tokens=7, endpoint="/v1/chat")
    event |= {"subject": "words", "time": "2026-10-05T08:00:00." + "1" * 500 + "Z"}
    kept = salvage(json.dumps(event).encode())
    assert kept["data"]["user"] == kept["data"]["input_tokens"] == WITHHELD
    assert (kept["data"]["output_tokens"], kept["data"]["endpoint"]) == (7, "/v1/chat")
    assert kept["time"] == "2026-10-05T08:00:00.111111Z"
    assert not {"subject", "prompt"} & (kept.keys() | kept["data"].keys())
    assert "words" not in json.dumps(kept)


def test_an_address_is_not_kept(make_event) -> None:
    assert salvage(json.dumps(make_event(user="192.0.2.7")).encode())["data"]["user"] == WITHHELD


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps).map(str.encode)
)
def test_nothing_is_kept_of_what_is_no_event(piece: bytes) -> None:
    assert salvage(piece) is None


def test_the_same_refusal_again_only_counts(services, make_event) -> None:
    event = make_event(tenant="atlantis")
    refuse(services, event, event)
    refuse(services, event)
    (item,) = list_quarantined(services.engine)
    assert (item.occurrences, item.code, item.channel) == (3, "unknown_tenant", "http")


def test_an_event_enters_the_ledger_once_its_tenant_is_registered(services, make_event) -> None:
    event = make_event(tenant="atlantis")
    (number,) = refuse(services, event)
    assert replay(services.intake, services.engine, [number], {}).rejected == 1
    add_tenant(services.engine, "atlantis")
    answer = replay(services.intake, services.engine, None, {})
    assert (answer.accepted, answer.events[0].index) == (1, number)
    assert list_quarantined(services.engine) == []
    assert list_quarantined(services.engine, done=True)[0].replayed_at is not None


def test_what_is_dismissed_is_offered_no_more_and_says_who_decided_it_and_why(services, make_event) -> None:
    event = make_event(tenant="atlantis")
    (number,) = refuse(services, event)
    (other,) = refuse(services, make_event(tenant="lemuria"))
    said = {"why": "A trial.", "author": "operator", "now": datetime(2026, 10, 6, tzinfo=UTC)}
    assert dismiss(services.engine, [number, 10**12], **said) == 1
    assert [one.number for one in list_quarantined(services.engine)] == [other]
    again = services.intake.take([decode_one(json.dumps(event).encode())], "http")
    assert again.rejected == 1
    (found,) = list_quarantined(services.engine, numbers=[number], done=True)
    assert (found.dismissed_by, found.dismissed_why, found.dismissed_at) == ("operator", "A trial.", said["now"])
    assert (found.occurrences, found.replayed_at) == (2, None)
    add_tenant(services.engine, "atlantis")
    for numbers in ([number], None):
        assert replay(services.intake, services.engine, numbers, {}).accepted == 0
    assert dismiss(services.engine, [number], **said | {"why": "Another reason."}) == 0
    assert list_quarantined(services.engine, numbers=[number], done=True)[0].dismissed_why == "A trial."


def test_what_has_entered_the_ledger_is_not_dismissed(services, make_event) -> None:
    (number,) = refuse(services, make_event(tenant="atlantis"))
    add_tenant(services.engine, "atlantis")
    assert replay(services.intake, services.engine, [number], {}).accepted == 1
    assert dismiss(services.engine, [number], why="w", author="a", now=datetime(2026, 10, 6, tzinfo=UTC)) == 0


def test_a_field_can_be_set_in_its_own_type(services, make_event) -> None:
    (number,) = refuse(services, make_event(input_tokens=-5))
    assert replay(services.intake, services.engine, [number], {"data.input_tokens": "5"}).accepted == 1


def test_an_event_is_not_replayed_without_a_value_that_it_stated(services, make_event) -> None:
    broken, mendable = (refuse(services, make_event(input_tokens=-5, user=user))[0] for user in ("two words", "u-1"))
    answer = replay(services.intake, services.engine, None, {})
    assert [(one.index, one.code, one.field) for one in answer.events] == [
        (number, "negative_quantity", "data.input_tokens") for number in (broken, mendable)
    ]
    answer = replay(services.intake, services.engine, None, {"data.input_tokens": "5"})
    assert [(one.index, one.status) for one in answer.events] == [(broken, "rejected"), (mendable, "accepted")]


def test_content_that_was_refused_is_gone_and_its_use_can_be_recorded(services, make_event) -> None:
    (number,) = refuse(services, make_event(prompt="words"))
    assert replay(services.intake, services.engine, [number], {}).accepted == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"id.x": "y"}, "changes"), ({"data": "y"}, "changes"), ({"data.images": "two"}, "changes.data.images")],
)
def test_a_change_that_no_event_could_carry_is_refused(services, changes, field) -> None:
    with pytest.raises(Unprocessable) as refused:
        replay(services.intake, services.engine, None, changes)
    assert refused.value.field == field


def test_a_replay_ends_though_it_refuses_anew(services, make_event) -> None:
    refuse(services, *(make_event(tenant="atlantis") for _ in range(3)))
    answer = replay(services.intake, services.engine, None, {"data.tenant": "lemuria"})
    assert (answer.rejected, len(list_quarantined(services.engine))) == (3, 6)
