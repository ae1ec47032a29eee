"""Whatever a caller sends, nothing of its content is answered, kept or logged, and the good events beside it enter."""

import json
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.database import transaction
from metering.events.decoding import decode
from metering.events.envelope import UsageData, UsageEvent
from metering.events.refusals import CODES
from metering.services import Services
from metering.tables import ledger_entry

MIB = 1024 * 1024
SENTENCE = "quarterly Zx81Qv figures"
"""Content: it can stand anywhere, since no field takes it."""
SECRET = "sk-Zx81Qv-4fJ8"
"""A secret in the form of a name: it can stand wherever the schema has no field for a name."""
MARKER = "Zx81Qv"

FIELDS = [*UsageEvent.__struct_fields__, *UsageData.__struct_fields__, "prompt", "messages", "meta", "a"]
scalars = st.sampled_from([SENTENCE, f"2026-10-05T08:00:00Z {MARKER}", 5, -1, 1.5, True, None, "ok", "dinum", 10**30])
keys = st.sampled_from([*FIELDS, SENTENCE, SECRET, f"` - at `$.{MARKER}", f"x` - at `$.data.{MARKER}`", f"{MARKER}\0"])
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6))


def everything_stored(services: Services) -> str:
    """Every row of every table as text."""
    with transaction(services.engine) as connection:
        names = sa.inspect(connection).get_table_names()
        assert {"quarantine", "ledger_entry", "ledger_series", "token"} <= set(names)
        rows = [row for name in names for row in connection.scalars(sa.text(f'SELECT t::text FROM "{name}" t'))]
    return "\n".join(rows)


def test_content_is_never_answered_stored_or_logged(services, make_event, capfd, caplog) -> None:
    accepted = 0

    @settings(max_examples=150)
    @given(documents, st.dictionaries(keys, documents, max_size=3), st.dictionaries(keys, documents, max_size=3))
    def check(document: Any, in_envelope: dict[str, Any], in_data: dict[str, Any]) -> None:
        nonlocal accepted
        event, good = make_event(), make_event()
        event |= in_envelope
        if isinstance(event["data"], dict):
            event["data"] = event["data"] | in_data
        body = json.dumps([document, event, good]).encode()
        answer = services.intake.take(decode(body, "json", 10), "http")
        assert answer.events[0].status == "rejected"
        assert answer.events[2].status == "accepted"
        assert MARKER not in repr(answer)
        accepted += answer.accepted

    with structlog.testing.capture_logs() as logs:
        check()
    assert MARKER not in everything_stored(services)
    assert MARKER not in repr(logs) + caplog.text + "".join(capfd.readouterr())
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(ledger_entry)) == accepted


def spoilt(event: dict[str, Any], rng: random.Random) -> bytes:
    """An event that must be refused, in one of many ways; all but the shortest carry the marker."""
    data, name = event["data"], rng.choice(sorted(UsageData.__struct_fields__))
    nested: Any = SENTENCE
    for _ in range(rng.randrange(1, 60)):
        nested = [nested] if rng.random() < 0.5 else {SECRET: nested}
    whole = json.dumps(event)
    ways: list[Callable[[], str | bytes]] = [
        lambda: json.dumps(event | {SENTENCE: nested}),
        lambda: json.dumps(event | {"data": data | {rng.choice(("prompt", "content", "messages")): nested}}),
        lambda: json.dumps(event | {"data": data | {name: nested}}),
        lambda: json.dumps(event | {"data": data | {SECRET: 1}}),
        lambda: json.dumps(event | {"data": data | {name: SENTENCE}}),
        lambda: json.dumps(event | {"data": [data, SENTENCE]}),
        lambda: json.dumps(event | {"id": f"{MARKER}\0"}),
        lambda: json.dumps(event | {"source": SENTENCE}),
        lambda: json.dumps(event | {"time": SENTENCE}),
        lambda: json.dumps(event | {"type": SECRET}),
        lambda: json.dumps(event | {"data": data | {"input_tokens": rng.choice((-1, 1.5, 2**53, 10**25, SENTENCE))}}),
        lambda: json.dumps(event | {"data": data | {"cached_input_tokens": 2**50}}),
        lambda: whole[: rng.randrange(2, len(whole) - 1)] + MARKER,
        lambda: whole.replace('"dinum"', '"\\ud800' + MARKER + '"'),
        lambda: whole.replace('"dinum"', f"NaN{MARKER}"),
        lambda: whole.encode().replace(b'"dinum"', b'"\xff' + MARKER.encode() + b'"'),
        lambda: whole.replace("{", "[", 1),
        lambda: "[" * rng.randrange(1, 5_000),
        lambda: '{"data":' * rng.randrange(1, 5_000),
        lambda: whole.replace('"dinum"', f'"dinum", "tenant": "{SENTENCE}"'),
        lambda: whole.replace("100", "1" * 5_000),
        lambda: json.dumps(SENTENCE),
        lambda: "nul",
    ]
    made = rng.choice(ways)()
    return made.encode() if isinstance(made, str) else made


def test_ten_thousand_hostile_events_leave_nothing_and_take_no_good_one_along(services, make_event) -> None:
    rng = random.Random(20261005)
    codes: set[str] = set()
    tracemalloc.start()
    for _ in range(20):
        good = [json.dumps(make_event()).encode() for _ in range(50)]
        bad = [spoilt(make_event(), rng) for _ in range(500)]
        order = [(piece, True) for piece in good] + [(piece, False) for piece in bad]
        rng.shuffle(order)
        answer = services.intake.take(decode(b"\n".join(piece for piece, _ in order), "ndjson", 10_000), "http")
        for (piece, is_good), result in zip(order, answer.events, strict=True):
            assert (result.status == "accepted") is is_good, piece[:400]
        assert MARKER not in repr(answer)
        codes |= {result.code for result in answer.events if result.code}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert codes <= CODES.keys()
    assert len(codes) >= 12
    assert peak < 60 * MIB
    assert MARKER not in everything_stored(services)


def test_a_call_of_ten_thousand_refused_events_is_answered_in_order(services) -> None:
    body = b"\n".join(b'{"specversion":"1.0","id":"e-%d","prompt":"%d"}' % (n, n) for n in range(10_000))
    answer = services.intake.take(decode(body, "ndjson", 10_000), "http")
    assert [result.index for result in answer.events] == list(range(10_000))
    assert {(result.code, result.field) for result in answer.events} == {("content_field", "prompt")}


def test_thousands_of_distinct_series_in_one_call_are_taken(services, make_event) -> None:
    events = [make_event(user=f"u-{number}", deployment=f"d-{number}") for number in range(3_000)]
    events[7]["data"]["tenant"], events[8]["data"]["user"] = "atlantis", "192.0.2.7"
    answer = services.intake.take(decode(json.dumps(events).encode(), "json", 10_000), "http")
    assert (answer.accepted, answer.rejected) == (2_998, 2)
    assert [answer.events[index].code for index in (7, 8)] == ["unknown_tenant", "personal_identifier"]
