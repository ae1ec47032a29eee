"""`GET /v1/usage`: the sums that come out are those that went in, however they are cut."""

import csv
import io
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.events.decoding import decode
from metering.rules.quantities import OPERATIONS, QUANTITIES, STATUSES, add, expected_quantities
from metering.tables import ROLLUP_SUMS
from tests.conftest import ndjson

OCTOBER = {"start": "2026-10-01", "end": "2026-11-01"}
Event = dict[str, Any]


def ask(operator, **params: Any) -> list[dict[str, Any]]:
    answer = operator.get("/v1/usage", params=OCTOBER | params)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def at(make_event, instant: str, **changes: Any) -> Event:
    """An event that is admitted and ends at an instant."""
    return make_event(time=instant, started_at=None, **changes)


def test_the_unknown_stays_apart_from_zero(operator, make_event) -> None:
    counts = {"one": [None, None], "two": [None, 0], "three": [3, None]}
    events = [make_event(project=name, input_tokens=value) for name, values in counts.items() for value in values]
    operator.post("/v1/events", json=events)
    found = {
        row["project"]: (row["input_tokens"], row["uncounted_requests"]) for row in ask(operator, group_by="project")
    }
    assert found == {"one": (None, 2), "two": (0, 1), "three": (3, 1)}
    assert ask(operator, tenant="education") == []


def test_pages_put_together_are_the_whole_and_the_csv(operator, make_event) -> None:
    events = [
        make_event(user=f"u-{number}", model_served=None if number % 3 else "m", images=number) for number in range(23)
    ]
    operator.post("/v1/events", json=events)
    params = OCTOBER | {"group_by": "user,model", "bucket": "day"}
    whole = operator.get("/v1/usage", params=params).json()
    assert (len(whole["items"]), whole["next_cursor"]) == (23, None)
    paged, cursor = [], 0
    while cursor is not None:
        page = operator.get("/v1/usage", params=params | {"limit": 5, "cursor": cursor}).json()
        paged += page["items"]
        cursor = page["next_cursor"]
    assert paged == whole["items"]
    answer = operator.get("/v1/usage", params=params | {"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    read = csv.DictReader(io.StringIO(answer.text))
    assert list(read) == [
        {name: "" if value is None else str(value) for name, value in item.items()} for item in whole["items"]
    ]
    assert read.fieldnames == list(whole["items"][0])


def test_filters_let_their_values_through_and_combine(operator, make_event) -> None:
    users, models = ("u-1", "u-2", "u-3"), ("m-1", "m-2")
    operator.post("/v1/events", json=[make_event(user=user, model_served=model) for user in users for model in models])
    assert ask(operator, user=["u-1", "u-3"], model="m-2")[0]["requests"] == 2
    assert ask(operator, model="m-2")[0]["requests"] == 3
    assert [row["user"] for row in ask(operator, model="m-1", group_by="user")] == list(users)


def test_people_and_models_are_cuts_of_the_same_sums(operator, make_event) -> None:
    events = [
        make_event(user=f"u-{n % 4}", api_key=f"k-{n % 3}", model_served=f"m-{n % 5}", input_tokens=n)
        for n in range(40)
    ]
    operator.post("/v1/events", json=events)
    for groups in ("user", "api_key", "model", "user,api_key", "tenant,user,model", "operation"):
        assert total(ask(operator, group_by=groups)) == total(ask(operator))


@pytest.mark.parametrize(
    ("tz", "day", "hours"),
    [
        ("Europe/Paris", "2026-10-25", 25), ("Europe/Paris", "2026-03-29", 23), ("Europe/Paris", "2026-10-05", 24),
        ("Asia/Kolkata", "2026-10-05", 24), ("UTC", "2026-10-25", 24), ("Australia/Lord_Howe", "2026-10-04", 24),
    ],
)  # fmt: skip
def test_a_civil_day_has_its_own_hours(tz, day, hours, operator, make_event) -> None:
    """One event every 30 minutes around the day: the day takes those between its midnights, hour by hour."""
    zone, start = ZoneInfo(tz), datetime.fromisoformat(day)
    first, last = (moment.replace(tzinfo=zone).astimezone(UTC) for moment in (start, start + timedelta(days=1)))
    moments = [first + timedelta(minutes=15 + 30 * step) for step in range(-4, 2 * hours + 4)]
    operator.post("/v1/events", json=[at(make_event, moment.isoformat()) for moment in moments])
    inside = [moment for moment in moments if first <= moment < last]
    period = {"start": day, "end": (start + timedelta(days=1)).date().isoformat(), "tz": tz}
    (whole,) = ask(operator, **period, bucket="day")
    assert (whole["requests"], datetime.fromisoformat(whole["bucket_start"])) == (len(inside), first)
    by_hour = ask(operator, **period, bucket="hour")
    assert sum(row["requests"] for row in by_hour) == len(inside)
    assert len({row["bucket_start"] for row in by_hour}) == len(by_hour)
    if tz != "Australia/Lord_Howe":
        assert [row["requests"] for row in by_hour] == [2] * hours
    assert ask(operator, **period, bucket="hour", group_by="user") == [
        {"bucket_start": row.pop("bucket_start"), "user": "u-1", **row} for row in by_hour
    ]


def test_months_of_a_zone_with_half_hours_are_cut_at_its_own_midnights(operator, make_event) -> None:
    """Lord Howe is 11 hours ahead in summer, and 10:30 in winter: May begins in the middle of an hour of UTC."""
    for zone, before in (("Australia/Lord_Howe", "2026-04-30T13:29:59Z"), ("Asia/Kolkata", "2026-04-30T18:29:59Z")):
        after = (datetime.fromisoformat(before) + timedelta(seconds=1)).isoformat()
        operator.post("/v1/events", json=[at(make_event, instant, project=zone) for instant in (before, after)])
        rows = ask(operator, start="2026-01-01", end="2026-11-01", tz=zone, bucket="month", project=zone)
        assert [(row["bucket_start"][:10], row["requests"]) for row in rows] == [("2026-04-01", 1), ("2026-05-01", 1)]


def test_a_past_batch_shows_the_ledger_as_it_was(operator, make_event) -> None:
    for number in range(1, 4):
        operator.post("/v1/events", json=make_event(images=number))
    assert [ask(operator, as_of=batch)[0]["images"] for batch in (1, 2, 3, 10**15)] == [1, 3, 6, 6]
    assert ask(operator, as_of=0) == []
    assert operator.get("/v1/usage", params=OCTOBER).json()["as_of"] == 3


# What a plain sum gives

counts = st.none() | st.integers(0, 5) | st.sampled_from([10**9, 2**53 - 1])
instants = st.sampled_from(
    ["2026-09-30T21:59:59.999999Z", "2026-09-30T22:00:00Z", "2026-10-05T08:30:00Z", "2026-10-24T22:30:00Z",
     "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-31T22:59:59Z", "2026-10-31T23:00:00Z"]
)  # fmt: skip
made = st.fixed_dictionaries(
    {
        "time": instants,
        "tenant": st.sampled_from(["dinum", "sante"]),
        "user": st.sampled_from([None, "u-1", "u-2"]),
        "api_key": st.sampled_from([None, "k-1"]),
        "model_served": st.sampled_from([None, "m-1", "m-2"]),
        "operation": st.sampled_from(OPERATIONS),
        "status": st.sampled_from(STATUSES),
        "requests": counts,
        "input_tokens": counts,
        "output_tokens": counts,
        "storage_byte_hours": counts,
    }
)
GROUPINGS = [(), ("tenant",), ("model", "operation"), ("user",), ("tenant", "api_key", "user"), ("user", "model")]
_examples = itertools.count()


def contribution(data: dict[str, Any]) -> dict[str, int | None]:
    """What one event adds to every sum."""
    known = {name: data.get(name, 1 if name == "requests" else None) for name in QUANTITIES}
    expected = expected_quantities(data["operation"], data["status"])
    return {
        **known,
        **{f"requests_{s}": known["requests"] if data["status"] == s else None for s in STATUSES if s != "ok"},
        "uncounted_requests": int(any(known[name] is None for name in expected)),
    }


def total(rows: Iterable[dict[str, Any]]) -> dict[str, int | None]:
    sums: dict[str, int | None] = dict.fromkeys(ROLLUP_SUMS)
    for row in rows:
        for name in ROLLUP_SUMS:
            sums[name] = add(sums[name], row[name])
    return sums


def plain_sums(events: list[Event], groups: tuple[str, ...]) -> dict[tuple[str | None, ...], dict[str, int | None]]:
    """Sums of October in Paris by group, with nothing but Python."""
    found: dict[tuple[str | None, ...], list[dict[str, int | None]]] = {}
    for event in events:
        if datetime.fromisoformat(event["time"]).astimezone(ZoneInfo("Europe/Paris")).strftime("%Y-%m") == "2026-10":
            data = event["data"]
            data = {**data, "model": data.get("model_served", data["model_requested"])}
            found.setdefault(tuple(data.get(name) for name in groups), []).append(contribution(data))
    return {group: total(rows) for group, rows in found.items()}


def test_sums_by_any_group_and_from_any_source_are_plain_sums(operator, services, make_event) -> None:
    @settings(max_examples=40)
    @given(st.lists(made, min_size=1, max_size=25), st.sampled_from(GROUPINGS))
    def check(chosen: list[dict[str, Any]], groups: tuple[str, ...]) -> None:
        project = f"p-{next(_examples)}"
        events = [make_event(project=project, started_at=None, **changes) for changes in chosen]
        for event, changes in zip(events, chosen, strict=True):
            if changes["requests"] is None:
                event["data"]["requests"] = None
        services.intake.take(decode(ndjson(events), "ndjson", 100), "http")
        expected = plain_sums(events, groups)
        for source in ({}, {"as_of": 10**12}):  # a rollup; the rows
            rows = ask(operator, project=project, group_by=",".join(groups), **source)
            assert {tuple(row[name] for name in groups): total([row]) for row in rows} == expected
        finer = ask(operator, project=project, group_by=",".join((*groups, "user", "api_key")))  # the days
        assert total(finer) == total(expected.values())
        for bucket in ("hour", "day", "month"):
            assert total(ask(operator, project=project, bucket=bucket)) == total(expected.values())

    check()
