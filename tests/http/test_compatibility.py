"""Usage in others' forms, read by OpenAI's own client and as OpenGateLLM's users read it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import openai

from metering.services import Services
from tests.billing.conftest import CATALOGUE, write_file
from tests.conftest import Api
from tests.people import add_agent

DAY = datetime(2026, 10, 5, tzinfo=UTC)
START, END = (int((DAY + timedelta(days=days)).timestamp()) for days in (-1, 3))


def event(number: int, **data: Any) -> dict[str, Any]:
    """A request so many half days after the first."""
    started = DAY + timedelta(hours=12 * number)
    own = {
        "tenant": "dinum", "project": f"p-{number % 2}", "user": "u-1", "api_key": "k-1", "operation": "chat",
        "model_requested": "albert-large", "started_at": started.isoformat(), "status": "ok", "input_tokens": 1_000,
        "cached_input_tokens": 400, "output_tokens": 200,
    }  # fmt: skip
    name = "-".join(map(str, (number, *data.values())))
    return {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": name,
        "time": (started + timedelta(seconds=2)).isoformat(), "data": own | data,
    }  # fmt: skip


def record(api: Api, services: Services) -> str:
    """Three requests of two days, one of them uncounted, audio and embeddings; a token of a manager."""
    write_file(services, CATALOGUE)
    unknown = dict.fromkeys(("input_tokens", "cached_input_tokens", "output_tokens"))
    events = [
        event(0), event(1), event(2, **unknown), event(0, tenant="sante"),
        event(0, operation="transcription", audio_ms=90_500, model_requested="whisper", **unknown),
        event(1, operation="embedding", model_requested="bge", output_tokens=None),
    ]  # fmt: skip
    with api.client() as client:
        assert client.post("/v1/events", json=events).json()["accepted"] == len(events)
    return add_agent(services, "dinum", "manager")[1]


def test_openais_client_reads_usage_and_costs(api: Api, services: Services) -> None:
    token = record(api, services)
    usage = openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", admin_api_key=token).admin.organization.usage
    page = usage.completions(start_time=START, end_time=END)
    assert [len(bucket.results) for bucket in page.data] == [0, 1, 1, 0]
    assert (page.has_more, page.next_page, page.data[0].start_time, page.data[-1].end_time) == (False, None, START, END)
    found: Any = page.data[1].results[0]
    assert found.object == "organization.usage.completions.result"
    assert (found.input_tokens, found.input_cached_tokens, found.output_tokens, found.num_model_requests) == (
        2_000, 800, 400, 2,
    )  # fmt: skip
    assert (found.project_id, found.model) == (None, None)
    unknown: Any = page.data[2].results[0]
    assert (unknown.input_tokens, unknown.uncounted_requests) == (0, 1)

    grouped = usage.completions(start_time=START, end_time=END, group_by=["project_id", "model"], project_ids=["p-1"])
    cut: Any = grouped.data[1].results
    assert [(one.project_id, one.model, one.num_model_requests) for one in cut] == [("p-1", "albert-large", 1)]

    first = usage.completions(start_time=START + 1_800, end_time=END, bucket_width="1h", limit=24)
    assert (first.has_more, len(first.data), first.data[0].start_time) == (True, 24, START + 1_800)
    second = usage.completions(start_time=START, end_time=END, bucket_width="1h", limit=24, page=first.next_page or "")
    assert second.data[0].start_time == first.data[-1].end_time
    whole = usage.completions(start_time=START, end_time=END, bucket_width="1h", limit=168)
    assert [bucket.start_time for bucket in whole.data if bucket.results] == [
        int((DAY + timedelta(hours=12 * number)).timestamp()) for number in range(3)
    ]

    audio: Any = usage.audio_transcriptions(start_time=START, end_time=END).data[1].results[0]
    assert (audio.seconds, audio.num_model_requests) == (91, 1)
    embedded: Any = usage.embeddings(start_time=START, end_time=END, group_by=["api_key_id"]).data[1].results[0]
    assert (embedded.input_tokens, embedded.api_key_id) == (1_000, "k-1")

    costs = usage.costs(start_time=START, end_time=END, group_by=["line_item", "project_id"])
    priced: Any = costs.data[1].results
    assert {(one.line_item, one.project_id, one.amount and one.amount.value) for one in priced} == {
        ("albert-large, chat", "p-0", 1.4), ("albert-large, chat", "p-1", 1.4),
        ("whisper, transcription", "p-0", None), ("bge, embedding", "p-1", None),
    }  # fmt: skip
    assert {one.unpriced_requests for one in priced} == {0, 1}


def test_what_is_not_kept_is_refused_and_nobody_elses_is_shown(api: Api, services: Services) -> None:
    record(api, services)
    _account, member = add_agent(services, "dinum", "member")
    with api.client(member) as client:
        period = {"start_time": START, "end_time": END}
        assert client.get("/v1/organization/usage/completions", params=period).json()["data"][1]["results"] == []
        for asked, field in (
            ({"bucket_width": "1m"}, "bucket_width"), ({"group_by": "batch"}, "group_by"), ({"limit": 32}, "limit"),
            ({"end_time": START}, "end_time"), ({"page": "page_x"}, "page"),
        ):  # fmt: skip
            refused = client.get("/v1/organization/usage/completions", params=period | asked)
            assert (refused.status_code in {400, 422}, refused.json()["field"]) == (True, field)
        refused = client.get("/v1/organization/usage/completions", params=period | {"user_ids[]": "u-1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")


def test_usage_in_opengatellms_form(api: Api, services: Services) -> None:
    token = record(api, services)
    with api.client(token) as client:
        asked = {"start_time": START, "end_time": END, "limit": 1}
        found = client.get("/opengatellm/v1/usage", params=asked).json()
        assert (found["object"], found["total"], found["offset"], found["limit"]) == ("list", 2, 0, 1)
        (day,) = found["data"]
        assert (day["object"], day["start_time"], day["end_time"]) == ("usage.bucket", START + 86_400, START + 172_800)
        assert (day["prompt_tokens"], day["completion_tokens"], day["total_tokens"]) == (3_000, 400, 3_400)
        assert (day["cost"], day["impacts"], day["uncounted_requests"]) == (2.8, {"kWh": None, "kgCO2eq": None}, 0)
        chat = client.get("/opengatellm/v1/usage", params=asked | {"endpoint": "/v1/chat/completions", "offset": 1})
        assert (chat.json()["total"], chat.json()["data"][0]["uncounted_requests"]) == (2, 1)
