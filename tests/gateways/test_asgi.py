"""A gateway that knows nothing of Jauge, metered from outside: real servers, real stores."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import openai
import pytest
import redis

from metering import embedded
from metering.database import transaction
from metering.tables import retirement
from tests.client.conftest import until
from tests.gateways.conftest import World, told
from tests.gateways.gateway import make_gateway
from tests.gateways.recordings import wav
from tests.gateways.upstream import ANSWER_TOKENS, serving
from tests.quotas.conftest import declare

MESSAGES = [{"role": "user", "content": "un deux trois"}]
CHAT = {"model": "small", "messages": MESSAGES}
PROMPT_TOKENS = 3


def test_every_operation_is_in_the_ledger_as_the_provider_counted_it(world: World) -> None:
    answer = world.post("chat/completions", CHAT | {"n": 2, "max_tokens": 5})
    assert answer.headers["x-ratelimit-limit-requests"] == "500"
    world.stream(CHAT)
    world.post("completions", {"model": "small", "prompt": ["a b", "c d e"]})
    world.post("embeddings", {"model": "small", "input": ["a b", "c"]})
    world.post("rerank", {"model": "small", "query": "q", "documents": ["a b", "c"]})
    with world.client() as client:
        files = {"file": ("a.wav", wav(3.5))}
        for fields in ({"model": "small"}, {"model": "small", "seconds": "2.5"}):
            assert client.post("/v1/audio/transcriptions", data=fields, files=files).json()["text"] == "bonjour"
        assert client.get("/v1/models", headers={"Authorization": ""}).json() == ["small"]
    entries = {(entry["operation"], entry["streamed"], entry["audio_ms"]): entry for entry in world.recorded(7)}
    counts = ("input_tokens", "output_tokens", "embedding_inputs", "documents", "audio_ms", "count_source")
    assert {key: told(entry, *counts) for key, entry in entries.items()} == {
        ("chat", False, None): (3, 10, None, None, None, "provider"),
        ("chat", True, None): (3, 8, None, None, None, "provider"),
        ("completion", False, None): (5, 8, None, None, None, "provider"),
        ("embedding", False, None): (3, None, 2, None, None, "provider"),
        ("rerank", False, None): (5, None, None, 2, None, "provider"),
        ("transcription", False, 3_500): (None, None, None, None, 3_500, "gateway_tokenizer"),
        ("transcription", False, 2_500): (None, None, None, None, 2_500, "provider"),
    }
    chat = entries["chat", True, None]
    assert told(chat, "tenant", "user", "api_key", "endpoint", "status", "http_status", "finish_reason") == (
        world.tenant, f"alice-{world.tenant}", f"k-{world.tenant}", "/v1/chat/completions", "ok", 200, "stop",
    )  # fmt: skip
    assert chat["occurred_at"] <= chat["first_token_at"] <= chat["ended_at"]
    total = world.used()
    assert sum(entry["input_tokens"] or 0 for entry in entries.values()) == total.input_tokens
    assert sum(entry["output_tokens"] or 0 for entry in entries.values()) == total.output_tokens
    standing = world.standing()
    assert standing["total_tokens"] == (total.input_tokens + total.output_tokens, 0)
    assert standing["concurrent_requests"] == (0, 0)


def test_the_gateway_gets_what_the_client_sent_and_only_bounds_are_changed(world: World) -> None:
    odd = b'{"messages" : [{"role":"user","content":"un \\u00e9t\\u00e9"}],  "temperature":1.50, "model":"small"}'
    with world.client() as client:
        client.post("/v1/chat/completions", content=odd)
        client.post("/v1/chat/completions", content=odd.replace(b'"model"', b'"max_tokens": 300000, "model"'))
        client.post("/v1/chat/completions", content=iter([odd[:20], odd[20:-1], b', "stream": true}']))
        client.post("/v1/embeddings", json={"model": "small", "input": "x"}, headers={"Content-Type": "text/plain"})
    first, lowered, streamed, _embedding = world.asked()
    assert first.size == len(odd)
    assert 99_900 < lowered.body.pop("max_tokens") < 100_000  # what the day has left
    assert lowered.body == first.body
    assert streamed.body == first.body | {"stream": True, "stream_options": {"include_usage": True}}


def test_clients_of_openai_read_answers_streams_and_refusals(world: World) -> None:
    client = world.openai()
    chunks = list(client.chat.completions.create(model="small", messages=MESSAGES, stream=True))
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert all(chunk.choices for chunk in chunks)
    options = {"include_usage": True}
    *_, last = client.chat.completions.create(model="small", messages=MESSAGES, stream=True, stream_options=options)
    assert (last.choices, last.usage.completion_tokens) == ([], ANSWER_TOKENS)
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "x" * 400_000}])
    assert limited.value.code == "limit_reached"
    assert int(limited.value.response.headers["retry-after"]) > 0
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="other", messages=MESSAGES)
    assert unknown.value.code == "unknown_model"
    with pytest.raises(openai.AuthenticationError) as nobody:
        client.with_options(api_key="sk-other").embeddings.create(model="small", input="x")
    assert nobody.value.code == "invalid_key"
    statuses = [told(entry, "status", "http_status", "error_code") for entry in world.recorded(3)]
    assert statuses == [("ok", 200, None), ("ok", 200, None), ("refused", 429, "limit_reached")]


UNREADABLE = [
    ({"Authorization": ""}, b"{}", 401, "missing_key"),
    ({"Authorization": "Basic c2stc2VjcmV0"}, b"{}", 401, "missing_key"),
    ({}, b"{", 400, "malformed_json"),
    ({}, b'{"messages": []}', 400, "missing_model"),
    ({}, b'{"model": 5}', 400, "missing_model"),
    ({}, b'{"model": "two words"}', 404, "unknown_model"),
    ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x", 400, "malformed_form"),
    ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x" + bytes(3_000), 413, "body_too_large"),
]


def test_what_cannot_be_metered_does_not_reach_the_gateway(world: World) -> None:
    with world.metered(upload_bytes_max=2_000) as bounded, bounded.client() as client:
        for headers, content, status, code in UNREADABLE:
            answer = client.post("/v1/chat/completions/", content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert world.asked() == []
    assert world.recorded(0) == []


def test_a_provider_that_fails_or_breaks_off_counts_what_came(world: World) -> None:
    assert world.post("chat/completions", CHAT, "fails-503").status_code == 503
    assert world.stream(CHAT, "fails-500") != []
    assert world.standing()["total_tokens"] == (0, 0)
    assert world.stream(CHAT, "cuts-after-3")[-1] == "(cut)"
    assert world.stream(CHAT, "cuts-after-0") == ["(cut)"]
    assert "error" in world.stream(CHAT, "errs-after-2")[2]
    recorded = {told(entry, "status", "http_status", "output_tokens", "count_source") for entry in world.recorded(5)}
    assert recorded == {
        ("error", 200, 2, "partial_stream"), ("error", 200, 3, "partial_stream"), ("error", 200, None, None),
        ("error", 500, None, None), ("error", 503, None, None),
    }  # fmt: skip
    assert world.standing()["output_tokens"] == (5, 0)
    assert world.used().output_tokens == 5


def test_a_provider_that_tells_no_usage_is_counted_by_what_it_sent(world: World) -> None:
    world.stream(CHAT, "silent+batches-4+answers-40")
    world.post("chat/completions", CHAT, "silent")
    by_stream = {entry["streamed"]: told(entry, "output_tokens", "count_source") for entry in world.recorded(2)}
    # "w16 w17 w18 w19 " is 16 bytes, taken for a token; a whole answer counts by 4 bytes.
    assert by_stream[False] == (6, "estimated")
    assert by_stream[True][1] == "estimated"


def test_chunks_pass_one_by_one_as_they_come(world: World) -> None:
    ahead = []
    with (
        world.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=CHAT | {"stream": True}, headers={"x-behaviour": "waits-40"}
        ) as answer,
    ):
        for received, line in enumerate(line for line in answer.iter_lines() if '"content"' in line):
            ahead.append(world.used().output_tokens - received - 1)
            assert '"w' in line
    assert len(ahead) == ANSWER_TOKENS
    assert max(ahead) <= 2  # were they kept together, the first would come with all others made


def test_a_client_that_leaves_pays_for_what_was_made(world: World) -> None:
    """Its connection closes in the midst of a stream."""
    with (
        world.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=CHAT | {"stream": True}, headers={"x-behaviour": "hangs-after-3"}
        ) as answer,
    ):
        lines = (line for line in answer.iter_lines() if '"content"' in line)
        assert [next(lines) for _ in range(3)]
    (entry,) = world.recorded(1)
    assert told(entry, "status", "output_tokens", "count_source") == ("aborted", 3, "partial_stream")
    assert world.standing()["concurrent_requests"] == (0, 0)


def test_many_clients_at_once_sum_up_exactly(world: World) -> None:
    def ask(number: int) -> None:
        body = {"n": number % 3 + 1, "max_tokens": number % 9 + 1, "stream": number % 2 == 0}
        answer = world.post("chat/completions", CHAT | body)
        assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(36)))
    entries = world.recorded(36)
    total = world.used()
    assert sum(entry["output_tokens"] for entry in entries) == total.output_tokens
    assert sum(entry["input_tokens"] for entry in entries) == total.input_tokens == 36 * PROMPT_TOKENS
    assert {entry["status"] for entry in entries} == {"ok"}
    assert world.standing()["output_tokens"] == (total.output_tokens, 0)


def test_while_jauge_is_away_the_middlewares_client_decides(world: World) -> None:
    world.ground.server.stop()
    refused = world.post("chat/completions", CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "quota_unavailable")
    assert refused.headers["retry-after"] == "5"
    assert world.asked() == []
    with world.metered(on_outage="allow") as open_world:
        assert open_world.post("chat/completions", CHAT | {"max_tokens": 500_000}).status_code == 200
        assert world.asked()[0].body["max_tokens"] == 500_000
        world.ground.server.start()
        (entry,) = world.recorded(1)
    assert told(entry, "api_key", "status", "output_tokens") == (f"k-{world.tenant}", "ok", ANSWER_TOKENS)
    assert world.standing()["output_tokens"] == (ANSWER_TOKENS, 0)


def test_jauge_that_stops_and_starts_during_streams_learns_all_of_them(world: World) -> None:
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(world.stream, CHAT, "waits-60") for _ in range(4)]
        until(lambda: world.used().output_tokens >= 4)
        world.ground.server.stop()
        for stream in streams:
            assert stream.result()[-1] == "[DONE]"
        world.ground.server.start()
    assert [entry["output_tokens"] for entry in world.recorded(4)] == [ANSWER_TOKENS] * 4
    assert world.standing()["output_tokens"] == (4 * ANSWER_TOKENS, 0)


def test_counters_that_are_killed_during_streams_are_built_again(world: World, servers: embedded.Servers) -> None:
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(world.stream, CHAT, "waits-60") for _ in range(4)]
        until(lambda: world.used().output_tokens >= 4)
        with redis.Redis.from_url(servers.redis_url) as client:
            before = client.info("server")["process_id"]
            os.kill(before, 9)  # its supervisor starts it again
            for stream in streams:
                assert stream.result()[-1] == "[DONE]"
            until(lambda: answers(client) not in {None, before})
    assert [entry["output_tokens"] for entry in world.recorded(4)] == [ANSWER_TOKENS] * 4
    until(lambda: world.standing().get("output_tokens") == (4 * ANSWER_TOKENS, 0))


def answers(client: redis.Redis) -> int | None:
    try:
        return client.info("server")["process_id"]
    except redis.RedisError:
        return None


def test_searches_and_files_count_under_the_model_that_they_are_given(world: World) -> None:
    with world.metered(models={"search": "small", "file_ingest": "small"}) as metered:
        metered.post("search", {"prompt": "x"}, "silent")
        with metered.client() as client:
            client.post("/v1/files", files={"file": ("a.pdf", bytes(200_000))})
            client.post("/v1/parse", json={"messages": []})  # passes
        entries = {entry["operation"]: entry for entry in world.recorded(2)}
        assert len(world.asked()) == 3
    assert told(entries["search"], "searches", "count_source") == (1, "gateway_tokenizer")
    assert told(entries["file_ingest"], "documents", "bytes_in") == (1, world.asked()[1].size)


def test_a_model_that_is_being_retired_says_so_in_answers(world: World) -> None:
    services = world.ground.platform.services
    declare(services, "models:\n- {id: old, name: O, category: chat, publisher: P, licence: MIT, operations: [chat]}\n")
    now = datetime.now(UTC)
    end = now + timedelta(days=30)
    retired = {"id": "model:old", "kind": "model", "subject": "old", "announced_at": now, "retires_at": end}
    with transaction(services.engine) as connection:
        connection.execute(retirement.insert().values(retired))
    services.catalog.refresh()
    headers = world.post("chat/completions", CHAT | {"model": "old"}).headers
    assert (headers["deprecation"], headers["sunset"][-3:]) == (f"@{int(now.timestamp())}", "GMT")


def test_the_first_token_is_hardly_later(world: World) -> None:
    """The bound is generous: what it costs is measured elsewhere."""

    def first_token_ms(url: str) -> float:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {world.key}"}) as client:
            waits = []
            for _ in range(15):
                begun = time.monotonic()
                with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
                    next(answer.iter_lines())
                    waits.append((time.monotonic() - begun) * 1_000)
            return sorted(waits)[7]

    with serving(make_gateway(world.ground.upstream_url)) as unmetered:
        assert first_token_ms(world.url) - first_token_ms(unmetered) < 100
