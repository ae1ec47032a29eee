"""Holds before, truth after, from a gateway in Python."""

import asyncio
import time
from pathlib import Path

import pytest

from metering.client import Estimated, Jauge, Provider, Refused
from tests.client.conftest import DIGEST, Platform, Server, until
from tests.quotas.conftest import declare

ALICE = {"key_sha256": DIGEST, "model": "small", "prompt_tokens": 10, "max_output_tokens": 100}
SANTE = {"tenant": "sante", "user": "u-1", "model": "small"}
CHAT = {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42}


def fail(_: object) -> None:
    raise ZeroDivisionError


def names(entry: dict, *wanted: str) -> tuple:
    return tuple(entry[name] for name in wanted)


def test_a_request_that_runs_is_in_the_ledger_as_it_was(platform: Platform) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**ALICE, application="assistant") as hold:
            assert hold.granted_output_tokens == 100
            assert int(hold.headers["x-ratelimit-remaining-tokens"]) == 99_890
            assert platform.standing()["total_tokens"] == (0, 110)
            hold.commit(CHAT, http_status=200, finish_reason="stop")
    (entry,) = platform.entries()
    assert names(entry, "tenant", "user", "api_key", "model_requested", "model_served", "category", "application") == (
        "dinum", "alice", "k-alice", "small", "small", "chat", "assistant",
    )  # fmt: skip
    assert names(entry, "input_tokens", "output_tokens", "status", "count_source", "http_status") == (
        12, 30, "ok", "provider", 200,
    )  # fmt: skip
    assert entry["reservation"] == entry["event_id"] == hold.reservation
    assert platform.standing() == {
        "total_tokens": (42, 0), "output_tokens": (30, 0), "requests": (1, 0), "concurrent_requests": (0, 0),
    }  # fmt: skip


PRICED = """
price_books: [{id: list, name: List, currency: EUR, vat: out_of_scope, vat_reason: VATEX-EU-O}]
prices:
- {book: list, selector: "*", meter: input_tokens, price: "1", per: 1_000_000, valid_from: 2026-01-01T00:00:00Z}
- {book: list, selector: "*", meter: output_tokens, price: "2", per: 1_000_000, valid_from: 2026-01-01T00:00:00Z}
platform: {default_plan: wide, price_book: list}
"""


def test_a_hold_says_what_its_request_may_cost_and_then_what_it_did(platform: Platform) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**ALICE) as hold:
            assert hold.estimated == Estimated()  # no price, and a model that nothing is known of
            hold.commit(CHAT)
        declare(platform.services, PRICED)
        with jauge.hold(**ALICE) as hold:
            assert hold.estimated == Estimated(cost_neur=10 * 1_000 + 100 * 2_000)
            hold.commit(CHAT)
            assert hold.estimated == Estimated(cost_neur=12 * 1_000 + 30 * 2_000)
        with jauge.hold(**ALICE) as hold:
            hold.give_back()
            assert hold.estimated is None


def test_many_streams_sum_up_in_ledger_and_counters(platform: Platform) -> None:
    async def stream(jauge, number: int) -> None:
        async with jauge.hold(**ALICE) as hold:
            for _ in range(number):
                hold.add(output_tokens=2)
                await asyncio.sleep(0)
            if number % 2:
                await hold.commit({"input_tokens": 10, "output_tokens": 2 * number})

    async def gateway() -> None:
        async with platform.ajauge() as jauge:
            await asyncio.gather(*(stream(jauge, number) for number in range(1, 31)))

    asyncio.run(gateway())
    entries = platform.entries()
    output = 2 * sum(range(1, 31))
    assert len(entries) == 30
    assert sum(entry["output_tokens"] for entry in entries) == output
    assert sum(entry["input_tokens"] for entry in entries) == 300
    assert {entry["status"] for entry in entries} == {"ok"}
    assert all(entry["occurred_at"] <= entry["first_token_at"] <= entry["ended_at"] for entry in entries)
    assert platform.standing() == {
        "total_tokens": (output + 300, 0), "output_tokens": (output, 0), "requests": (30, 0),
        "concurrent_requests": (0, 0),
    }  # fmt: skip


def test_a_refusal_is_what_the_gateway_answers(platform: Platform) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**SANTE):
            with pytest.raises(Refused) as told, jauge.hold(**SANTE):
                raise AssertionError("it runs")
        refused = told.value
        assert (refused.status, refused.code) == (429, "limit_reached")
        (limit,) = refused.limits
        assert (limit["meter"], limit["value"], limit["remaining"]) == ("concurrent_requests", 1, 0)
        with pytest.raises(Refused) as unknown, jauge.hold(key_sha256="0" * 64, model="small"):
            pass
        assert (unknown.value.status, unknown.value.code) == (401, "invalid_key")
        with pytest.raises(Refused) as other, jauge.hold(tenant="dinum", model="no such words"):
            pass
        assert (other.value.status, other.value.code) == (404, "unknown_model")
    recorded = sorted(names(entry, "tenant", "status", "http_status", "error_code") for entry in platform.entries())
    assert recorded == [("sante", "ok", None, None), ("sante", "refused", 429, "limit_reached")]


def test_when_there_is_room_is_told(platform: Platform) -> None:
    async def ask() -> Refused:
        async with platform.ajauge() as jauge:
            with pytest.raises(Refused) as told:
                async with jauge.hold(**(ALICE | {"prompt_tokens": 100_001})):
                    raise AssertionError("it runs")
            return told.value

    refused = asyncio.run(ask())
    assert refused.retry_after_s > 0
    assert refused.headers["Retry-After"] == str(refused.retry_after_s)


def test_a_request_that_fails_counts_what_was_streamed(platform: Platform) -> None:
    with platform.jauge() as jauge:
        for streamed in (0, 7):
            with pytest.raises(ZeroDivisionError), jauge.hold(**ALICE) as hold:
                fail(hold.add(output_tokens=streamed))
            assert {held for _used, held in platform.standing().values()} == {0}
    recorded = [names(entry, "status", "input_tokens", "output_tokens") for entry in platform.entries()]
    assert recorded == [("error", None, None), ("error", 10, 7)]
    assert platform.standing()["total_tokens"] == (17, 0)


def test_a_request_that_used_nothing_is_given_back_with_how_it_ended(platform: Platform) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**ALICE) as hold:
            hold.give_back(http_status=502, deployment="small-2-0")
            assert {held for _used, held in platform.standing().values()} == {0}
            with pytest.raises(ValueError, match="is over"):
                hold.give_back()
    (entry,) = platform.entries()
    assert names(entry, "status", "http_status", "deployment") == ("error", 502, "small-2-0")
    assert platform.standing()["total_tokens"] == (0, 0)


def test_a_cancelled_stream_counts_what_was_streamed_and_goes_on_being_cancelled(platform: Platform) -> None:
    async def gateway(streamed: int) -> dict:
        async with platform.ajauge() as jauge:
            begun = asyncio.Event()

            async def stream() -> None:
                async with jauge.hold(**ALICE) as hold:
                    hold.add(output_tokens=streamed)
                    begun.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(stream())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await asyncio.to_thread(platform.standing)

    for streamed in (0, 9):
        assert asyncio.run(gateway(streamed))["concurrent_requests"] == (0, 0)
    recorded = [names(entry, "status", "output_tokens") for entry in platform.entries()]
    assert recorded == [("aborted", None), ("aborted", 9)]
    assert platform.standing()["output_tokens"] == (9, 0)


def test_a_loop_that_ends_loses_no_event(platform: Platform) -> None:
    """asyncio.run cancels every task at its end, also those that tell what was used."""

    async def gateway() -> None:
        jauge = platform.ajauge()
        begun = asyncio.Event()

        async def stream() -> None:
            async with jauge.hold(**ALICE) as hold:
                hold.add(output_tokens=5)
                begun.set()
                await asyncio.sleep(60)

        streaming = asyncio.create_task(stream())
        await begun.wait()
        assert not streaming.done()

    asyncio.run(gateway())
    until(platform.entries)
    (entry,) = platform.entries()
    assert names(entry, "status", "output_tokens") == ("aborted", 5)


def test_forgetting_to_tell_what_was_used_is_seen(platform: Platform) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**ALICE):
            pass
    (entry,) = platform.entries()
    assert names(entry, "status", "output_tokens", "uncounted_requests") == ("ok", None, 1)


def test_a_providers_object_that_cannot_be_read_loses_no_count(platform: Platform) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**ALICE) as hold:
            hold.add(output_tokens=4)
            hold.commit(CHAT | {"total_tokens": 1}, provider=Provider.VLLM)
        with pytest.raises(ValueError, match="is a part of"), jauge.hold(**ALICE) as hold:
            hold.commit({"input_tokens": 1, "cached_input_tokens": 2})
    recorded = [names(entry, "status", "output_tokens", "count_source") for entry in platform.entries()]
    assert recorded == [("ok", 4, "gateway_tokenizer"), ("error", None, None)]


def test_a_heartbeat_keeps_a_hold_beyond_its_time(platform: Platform) -> None:
    def stream(jauge: Jauge) -> None:
        with jauge.hold(**ALICE) as hold:
            for _ in range(10):
                time.sleep(0.5)
                hold.add(output_tokens=1)

    async def gateway() -> dict:
        with platform.jauge(ttl_s=3) as jauge:
            async with platform.ajauge(ttl_s=3) as ajauge, ajauge.hold(**ALICE):
                streaming = asyncio.create_task(asyncio.to_thread(stream, jauge))
                await asyncio.sleep(4)
                standing = await asyncio.to_thread(platform.standing)
                await streaming
                return standing

    standing = asyncio.run(gateway())
    assert standing["concurrent_requests"] == (0, 2)
    assert standing["total_tokens"] == (0, 220)


def test_a_hold_without_a_sign_of_life_expires_and_counts_all_the_same(platform: Platform) -> None:
    with platform.jauge(ttl_s=1) as jauge:
        with jauge.hold(**ALICE) as hold:
            time.sleep(1.1)
            assert platform.standing()["concurrent_requests"] == (0, 0)
            hold.commit(CHAT)
    assert platform.standing()["total_tokens"] == (42, 0)


def test_more_output_is_granted_as_far_as_there_is_room(platform: Platform) -> None:
    async def stream() -> None:
        async with platform.ajauge() as jauge, jauge.hold(**ALICE) as hold:
            assert await hold.extend(more_output_tokens=50) == 50
            assert hold.granted_output_tokens == 150
            await hold.extend(more_output_tokens=200_000)
            assert hold.granted_output_tokens == 99_990
            with pytest.raises(Refused) as told:
                await hold.extend(more_output_tokens=1)
            assert told.value.code == "limit_reached"
            await hold.commit(CHAT)

    asyncio.run(stream())


def test_while_jauge_is_away_requests_are_refused_and_recorded_later(platform: Platform, server: Server) -> None:
    server.stop()
    with platform.jauge() as jauge:
        for whose in ({"tenant": "dinum", "user": "alice"}, {"key_sha256": DIGEST}):
            with pytest.raises(Refused) as told, jauge.hold(**whose, model="small"):
                raise AssertionError("it runs")
            assert (told.value.status, told.value.code) == (503, "quota_unavailable")
        server.start()
    # Whether the key is anybody's could not be known: it is no event.
    (entry,) = platform.entries()
    assert names(entry, "tenant", "user", "status", "http_status") == ("dinum", "alice", "refused", 503)


def test_while_jauge_is_away_requests_run_if_the_gateway_says_so(platform: Platform, server: Server) -> None:
    server.stop()
    with platform.jauge(on_outage="allow") as jauge:
        with jauge.hold(**ALICE) as hold:
            assert (hold.granted_output_tokens, hold.is_held) == (100, False)
            assert hold.extend(more_output_tokens=5) == 5
            hold.commit(CHAT)
        server.start()
    (entry,) = platform.entries()
    assert names(entry, "tenant", "user", "api_key", "output_tokens") == ("dinum", "alice", "k-alice", 30)
    assert platform.standing()["total_tokens"] == (42, 0)


def test_jauge_that_goes_away_during_a_request_learns_of_it_when_it_is_back(platform: Platform, server: Server) -> None:
    with platform.jauge() as jauge:
        with jauge.hold(**ALICE) as hold:
            server.stop()
            hold.commit(CHAT)
        server.start()
    assert [entry["output_tokens"] for entry in platform.entries()] == [30]
    assert platform.standing()["total_tokens"] == (42, 0)


def test_a_token_that_is_not_taken_counts_as_an_outage(platform: Platform) -> None:
    with platform.jauge(token="wrong") as jauge:
        with pytest.raises(Refused) as told, jauge.hold(**SANTE):
            pass
    assert (told.value.status, told.value.code) == (503, "quota_unavailable")
    with platform.jauge():
        pass
    assert [entry["status"] for entry in platform.entries()] == ["refused"]


@pytest.mark.parametrize("wrong", [{"user": "127.0.0.1"}, {"deployment": "two words"}, {"prompt_tokens": -1}])
def test_what_no_event_can_carry_is_refused_before_it_runs(tmp_path: Path, wrong: dict) -> None:
    with Jauge("http://127.0.0.1:9", "token", source="gw", spool=tmp_path, on_outage="allow") as jauge:
        with pytest.raises(ValueError), jauge.hold(**({"tenant": "dinum", "model": "small"} | wrong)):  # noqa: PT011
            pass
        with pytest.raises(TypeError), jauge.hold(model="small"):
            pass
    assert list(tmp_path.iterdir()) == []
