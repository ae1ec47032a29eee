"""Usage events of the simulated platform: thirty days of history, then the present. Pure: no I/O, the clock is given.

A day of history is drawn as a whole from a seed of that day, and its events are numbered within it; only then are
those left out that have not ended yet. So the same day has the same events whenever it is asked for: a demo that is
started again sends duplicates, and what the ledger has not seen is only what has happened since.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate, count, islice

# Everything here is a simulation that must come out the same again: the generator that is seeded is the right one.
from random import Random

import msgspec

from metering.rules.periods import PARIS, bucket_starts, day_bounds
from metering.simulator.population import APPLICATIONS, HOUR_WEIGHTS, SOURCE, WEEKDAY_FACTORS, Application
from metering.simulator.requests import Request, draw_request

CHUNK_EVENTS = 5_000
REPEATED_SHARE = 0.01
DISORDER_EVENTS = 20
"""How far, in events, one may arrive before its turn."""
SPOILT_SHARE = 0.002
PAUSE_S_MAX = 60.0
"""Longest pause that live events are made up for; a laptop that slept does not wake up to a flood."""
GROWTH_PER_DAY = 0.002
COLLECTIONS_SINCE = date(2024, 1, 1)

_WEIGHT_TOTAL = sum(application.weight for application in APPLICATIONS)
_encode = msgspec.json.Encoder().encode


def history(now: datetime, *, days: int = 30, events: int = 150_000, seed: int = 1) -> Iterator[list[bytes]]:
    """Events, as JSON, of `days` whole days in Europe/Paris and of the present one up to `now`; 5,000 a chunk.

    events: how many the whole days have, about; the present day adds its own. Order is that of the start of requests,
    almost; one in a hundred comes twice.
    """
    assert now.tzinfo is not None
    today = now.astimezone(PARIS).date()
    order = _seeded(f"{seed}/order/{today}")
    per_day = events / days
    dates = (today - timedelta(days=age) for age in range(days, -1, -1))
    ended = (event for day in dates for event in _day(day, now, per_day, seed))
    sent = _repeat_some(order, ended)
    while chunk := list(islice(sent, CHUNK_EVENTS)):
        keys = [place + order.random() * DISORDER_EVENTS for place in range(len(chunk))]
        yield [chunk[place] for place in sorted(range(len(chunk)), key=keys.__getitem__)]


def live(clock: Callable[[], datetime], *, rate_per_s: float = 4.0, seed: int = 1) -> Iterator[list[bytes]]:
    """Events, as JSON, that ended since the last call of `next`; endless, and often empty. It never waits.

    Ids hold the moment it began, so that no other run has them. A few events are such that the ledger must refuse.
    """
    began = then = clock()
    draw = _seeded(f"{seed}/live/{began.isoformat()}")
    numbers = count(1)
    owed = 0.0
    while True:
        now = max(clock(), then)
        span_s = min((now - then).total_seconds(), PAUSE_S_MAX)
        owed += rate_per_s * span_s * draw.uniform(0.5, 1.5)
        made = [
            _now_event(draw, now, span_s, f"live-{began:%Y%m%dT%H%M%S%f}-{next(numbers)}") for _ in range(int(owed))
        ]
        owed -= int(owed)
        hours = bucket_starts(then, now + timedelta.resolution, "hour", PARIS)
        made += [event for hour in hours if then < hour for event in _hosting(hour)]
        then = now
        yield list(_repeat_some(draw, made))


def _seeded(seed: str) -> Random:
    return Random(seed)  # noqa: S311 - a simulation


def _day(day: date, now: datetime, per_day: float, seed: int) -> Iterator[bytes]:
    """A day's events that ended by `now`. Those that did not are drawn all the same: the next ones depend on it."""
    key = f"{seed}/{per_day:.3f}/{day}"
    prefix = f"{day:%Y%m%d}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"
    draw = _seeded(key)
    hours = bucket_starts(*day_bounds(day), "hour", PARIS)
    for number, (started, application) in enumerate(_starts(draw, day, hours, per_day)):
        request = draw_request(draw, application)
        if started + request.duration <= now:
            yield _encode(_envelope(request, f"{prefix}-{number}", started))
    for hour in hours:
        if hour <= now:
            yield from _hosting(hour)


def _starts(draw: Random, day: date, hours: list[datetime], per_day: float) -> list[tuple[datetime, Application]]:
    """When each application is called on a day, in order."""
    local_hours = [hour.astimezone(PARIS).hour for hour in hours]
    calls: list[tuple[datetime, int]] = []
    for place, application in enumerate(APPLICATIONS):
        weights = [HOUR_WEIGHTS[application.shape][hour] for hour in local_hours]
        mean = per_day * application.weight / _WEIGHT_TOTAL * WEEKDAY_FACTORS[application.shape][day.weekday()]
        requests = round(mean * draw.uniform(0.9, 1.1))
        calls += [
            (hour + timedelta(microseconds=int(draw.random() * 3.6e9)), place)
            for hour in draw.choices(hours, weights, k=requests)
        ]
    return [(started, APPLICATIONS[place]) for started, place in sorted(calls)]


def _now_event(draw: Random, now: datetime, span_s: float, event_id: str) -> bytes:
    """An event that ended within the last `span_s` seconds."""
    request = draw_request(draw, draw.choices(APPLICATIONS, cum_weights=_cumulative_weights(now))[0])
    ended = now - timedelta(seconds=draw.random() * span_s)
    event = _envelope(request, event_id, ended - request.duration)
    return _encode(_spoil(draw, event) if draw.random() < SPOILT_SHARE else event)


def _cumulative_weights(now: datetime) -> tuple[float, ...]:
    local = now.astimezone(PARIS)
    return _weights_at(local.weekday(), local.hour)


@lru_cache
def _weights_at(weekday: int, hour: int) -> tuple[float, ...]:
    """How much each application calls at an hour, cumulated."""
    return tuple(
        accumulate(
            application.weight
            * WEEKDAY_FACTORS[application.shape][weekday]
            * HOUR_WEIGHTS[application.shape][hour]
            / sum(HOUR_WEIGHTS[application.shape])
            for application in APPLICATIONS
        )
    )


def _spoil(draw: Random, event: dict[str, object]) -> dict[str, object]:
    """An event that must be refused: of an administration that nobody registered, or with a prompt in it."""
    data = event["data"]
    assert isinstance(data, dict)
    fault = {"tenant": "inconnue"} if draw.random() < 0.5 else {"prompt": "Texte qui ne doit jamais être conservé."}
    return event | {"data": data | fault}


def _envelope(request: Request, event_id: str, started: datetime) -> dict[str, object]:
    data = request.data
    data["started_at"] = started
    if request.first_token is not None:
        data["first_token_at"] = started + request.first_token
    return {
        "specversion": "1.0",
        "type": "jauge.usage.v1",
        "source": SOURCE,
        "id": event_id,
        "time": started + request.duration,
        "data": data,
    }


def _hosting(hour: datetime) -> Iterator[bytes]:
    """What collections held during the hour that ended at `hour`: the same in history and live, whatever the seed."""
    for application in APPLICATIONS:
        if application.stored_bytes:
            age_days = (hour.date() - COLLECTIONS_SINCE).days
            data: dict[str, object] = {
                "tenant": application.tenant,
                "project": application.project,
                "application": application.name,
                "operation": "storage",
                "model_requested": "vector-store",
                "model_served": "vector-store",
                "status": "ok",
                "storage_byte_hours": int(application.stored_bytes * (1 + GROWTH_PER_DAY * age_days)),
                "count_source": "provider",
            }
            request = Request(data, duration=timedelta(hours=1))
            event_id = f"hosting-{application.project}-{hour.astimezone(UTC):%Y%m%dT%H}"
            yield _encode(_envelope(request, event_id, hour - request.duration))


def _repeat_some(draw: Random, events: Iterable[bytes]) -> Iterator[bytes]:
    """Events, one in a hundred again some time after."""
    held: list[bytes] = []
    for event in events:
        yield event
        chance = draw.random()
        if chance < REPEATED_SHARE:
            held.append(event)
        elif held and chance > 0.95:
            yield held.pop()
    yield from held
