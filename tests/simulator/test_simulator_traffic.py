"""The simulated platform: its events are good ones, its days look like days, and a day is always the same."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import chain, islice, pairwise

import msgspec
import pytest

from metering.events.decoding import decode_one
from metering.events.envelope import UsageEvent
from metering.events.validation import check_event, check_series, series_fields
from metering.ledger.series import Series
from metering.rules.periods import PARIS
from metering.rules.quantities import OPERATIONS, STATUSES, expected_quantities
from metering.simulator import ADMINISTRATIONS, APPLICATIONS, MODELS, history, live
from metering.simulator.population import WEEKDAY_FACTORS

NOW = datetime(2025, 6, 12, 13, 0, tzinfo=UTC)  # a Thursday, 15 h in Paris
DAYS, EVENTS = 14, 14_000

decoder = msgspec.json.Decoder(UsageEvent)


def past(now: datetime = NOW, days: int = DAYS, events: int = EVENTS, seed: int = 1) -> list[bytes]:
    return list(chain.from_iterable(history(now, days=days, events=events, seed=seed)))


@cache
def events() -> list[UsageEvent]:
    return [decoder.decode(event) for event in past()]


@cache
def distinct() -> list[UsageEvent]:
    return list({event.id: event for event in events()}.values())


def local(event: UsageEvent) -> datetime:
    assert event.data.started_at is not None
    return event.data.started_at.astimezone(PARIS)


def test_every_event_passes_the_ledgers_own_checks() -> None:
    for event in events():
        assert check_event(event, NOW) is None
        assert check_series(Series._make(series_fields(event))) is None
        assert event.time <= NOW


def test_parts_never_exceed_their_wholes() -> None:
    for event in events():
        data = event.data
        if data.cached_input_tokens is not None:
            assert data.input_tokens is not None
            assert data.cached_input_tokens <= data.input_tokens
        if data.reasoning_tokens is not None:
            assert data.output_tokens is not None
            assert data.reasoning_tokens <= data.output_tokens
    assert any(event.data.cached_input_tokens for event in events())
    assert any(event.data.reasoning_tokens for event in events())


def test_every_operation_status_and_administration_is_there() -> None:
    data = [event.data for event in events()]
    assert {datum.operation for datum in data} == set(OPERATIONS)
    assert {datum.status for datum in data} == set(STATUSES)
    assert {datum.tenant for datum in data} == set(ADMINISTRATIONS)
    assert {datum.model_served for datum in data} - {None} == set(MODELS)
    assert {datum.count_source for datum in data} == {"provider", "gateway_tokenizer", "partial_stream", None}


def test_shares_are_those_of_a_platform_that_works() -> None:
    count = len(distinct())
    status = Counter(event.data.status for event in distinct())
    assert 0.95 < status["ok"] / count < 0.97
    assert all(0.005 < status[name] / count < 0.03 for name in ("error", "aborted", "refused"))
    assert 0.007 < (len(events()) - count) / count < 0.013, "repeats"
    assert abs(count - EVENTS * (DAYS + 0.7) / DAYS) < EVENTS * 0.08


def test_some_answers_have_no_count_and_none_has_a_false_zero() -> None:
    uncounted = [
        event.data
        for event in distinct()
        if any(
            getattr(event.data, name) is None for name in expected_quantities(event.data.operation, event.data.status)
        )
    ]
    assert {datum.status for datum in uncounted} == {"ok", "aborted"}
    assert {datum.operation for datum in uncounted} == {"chat"}
    assert all(datum.count_source is None for datum in uncounted)
    assert all(event.data.input_tokens != 0 for event in events())
    for event in events():
        if event.data.status in {"error", "refused"}:
            assert event.data.input_tokens is None
            assert event.data.output_tokens is None
            assert event.data.model_served is None


def test_streams_have_a_first_token_and_nothing_else_has() -> None:
    for event in events():
        assert event.data.streamed == (event.data.first_token_at is not None)
        assert event.data.status != "aborted" or event.data.streamed
    chats = [event for event in events() if event.data.operation == "chat" and event.data.status == "ok"]
    assert sum(event.data.streamed for event in chats) > 0.8 * len(chats)


def test_tokens_have_a_heavy_tail() -> None:
    tokens = sorted(event.data.input_tokens or 0 for event in distinct() if event.data.operation == "chat")
    median, high = tokens[len(tokens) // 2], tokens[len(tokens) * 99 // 100]
    assert high > 10 * median > 0


def test_offices_work_by_day_and_in_the_week_of_paris() -> None:
    hours = Counter(local(event).hour for event in distinct())
    assert hours[10] > 3 * hours[3]
    assert hours[12] < 0.8 * min(hours[10], hours[15]), "lunch"
    whole = [event for event in distinct() if local(event).date() < NOW.astimezone(PARIS).date()]
    weekdays = Counter(local(event).weekday() for event in whole)
    assert min(weekdays[day] for day in range(5)) > 2 * max(weekdays[5], weekdays[6])


def test_one_administration_works_at_night() -> None:
    nights = Counter(event.data.tenant for event in distinct() if local(event).hour < 5)
    assert nights.most_common(1)[0][0] == "finances"


@pytest.mark.parametrize("factors", WEEKDAY_FACTORS.values(), ids=WEEKDAY_FACTORS)
def test_a_week_has_seven_mean_days(factors: tuple[float, ...]) -> None:
    assert sum(factors) == pytest.approx(7)


def test_the_population_has_the_size_of_a_demo() -> None:
    assert len(ADMINISTRATIONS) == 5
    for tenant, administration in ADMINISTRATIONS.items():
        own = [application for application in APPLICATIONS if application.tenant == tenant]
        callers = [caller for application in own for caller in application.callers]
        assert 2 <= len({application.project for application in own}) <= 4
        assert 3 <= len({caller.api_key for caller in callers}) <= 8
        assert 20 <= len({caller.user for caller in callers} - {None}) <= len(administration.users) <= 60
    assert len({series_fields(event) for event in events()}) < 6_000, "each new one costs the ledger a row"


def test_a_chunk_is_of_five_thousand_and_almost_in_order() -> None:
    chunks = list(history(NOW, days=DAYS, events=EVENTS))
    assert {len(chunk) for chunk in chunks[:-1]} == {5_000}
    assert len(chunks) > 2
    starts = [local(event) for event in events() if event.data.operation != "storage"]
    backwards = sum(later < earlier for earlier, later in pairwise(starts))
    assert 0 < backwards < len(starts) / 2
    assert max(earlier - later for earlier, later in pairwise(starts)) < timedelta(hours=8)


def test_the_same_moment_gives_the_same_bytes() -> None:
    assert past(NOW, 2, 2_000) == past(NOW, 2, 2_000)
    other = set(past(NOW, 2, 2_000, seed=2))
    assert other.isdisjoint(event for event in past(NOW, 2, 2_000) if b"hosting-" not in event)


def by_id(encoded: list[bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for event in encoded:
        assert found.setdefault(decoder.decode(event).id, event) == event
    return found


def test_later_the_same_day_only_adds() -> None:
    before, after = by_id(past(NOW, 2, 4_000)), by_id(past(NOW + timedelta(hours=2), 2, 4_000))
    assert before.items() < after.items()
    assert all(decoder.decode(after[one]).time > NOW for one in after.keys() - before.keys())


def test_the_next_day_keeps_what_both_have() -> None:
    before, after = by_id(past(NOW, 3, 6_000)), by_id(past(NOW + timedelta(days=1), 3, 6_000))
    both = before.keys() & after.keys()
    assert len(both) > 0.6 * len(before)
    assert all(before[one] == after[one] for one in both)
    first_day = NOW.astimezone(PARIS).date() - timedelta(days=2)
    missing = [decoder.decode(before[one]) for one in before.keys() - after.keys()]
    assert all(local(event).date() < first_day for event in missing)


def test_another_volume_is_other_usage_never_a_conflict() -> None:
    both = by_id(past(NOW, 2, 2_000) + past(NOW, 2, 3_000))
    assert len(both) > 4_500


@pytest.mark.parametrize(("day", "hours"), [(date(2025, 3, 30), 23), (date(2025, 10, 26), 25)])
def test_days_when_the_clock_changes(day: date, hours: int) -> None:
    now = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=PARIS)
    readings = {
        event.time
        for event in map(decoder.decode, past(now, 1, 500))
        if event.data.operation == "storage" and event.time.astimezone(PARIS).date() == day
    }
    assert len(readings) == hours


class Clock:
    """A clock that goes on by `step` each time it is read."""

    def __init__(self, step: timedelta, start: datetime = NOW) -> None:
        self.now, self.step = start, step

    def __call__(self) -> datetime:
        self.now += self.step
        return self.now


def test_live_events_are_of_now_at_the_rate_asked_for() -> None:
    clock = Clock(timedelta(seconds=0.5))
    ticks = list(islice(live(clock, rate_per_s=20), 600))
    decoded = [decode_one(event) for event in chain.from_iterable(ticks)]
    assert 5_700 < len(decoded) < 6_300
    good = [event for event in decoded if isinstance(event, UsageEvent)]
    assert all(
        check_event(event, clock.now) is None and check_series(Series._make(series_fields(event))) is None
        for event in good
    )
    assert all(NOW <= event.time <= clock.now for event in good)
    assert {event.data.status for event in good} == set(STATUSES)


def test_live_now_and_then_sends_what_must_be_refused() -> None:
    encoded = list(chain.from_iterable(islice(live(Clock(timedelta(seconds=1)), rate_per_s=50), 200)))
    decoded = [decode_one(event) for event in encoded]
    fields = Counter(item[0].field for item in decoded if isinstance(item, tuple))
    strangers = [event for event in decoded if isinstance(event, UsageEvent) and event.data.tenant == "inconnue"]
    assert set(fields) == {"data.prompt"}
    assert 0 < fields.total() + len(strangers) < 0.005 * len(encoded)
    assert strangers


def test_live_makes_up_for_no_long_sleep_and_survives_a_clock_set_back() -> None:
    asleep = live(Clock(timedelta(hours=3)), rate_per_s=1)
    assert len(next(asleep)) < 150
    back = live(Clock(-timedelta(seconds=5)), rate_per_s=10)
    assert next(back) == next(back) == []


def test_live_hosting_is_that_of_history() -> None:
    start = datetime(2025, 6, 11, 20, 59, 0, tzinfo=UTC)
    seen = chain.from_iterable(islice(live(Clock(timedelta(seconds=30), start), rate_per_s=0, seed=7), 500))
    hosting = by_id(list(seen))
    assert len(hosting) == 5 * sum(application.stored_bytes > 0 for application in APPLICATIONS)
    assert hosting.items() <= by_id(past(NOW, 2, 200)).items()


def test_two_runs_of_live_share_no_id() -> None:
    first, second = (live(Clock(timedelta(seconds=1), NOW + timedelta(seconds=late)), rate_per_s=50) for late in (0, 1))
    ids = [{decoder.decode(event).id for event in next(islice(run, 5, None))} for run in (first, second)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
