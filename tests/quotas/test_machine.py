"""The counters against a model that says the same in other words: whatever happens, in whatever order.

The model never adds up as it goes. It keeps what was held, committed and recorded, and says what a counter has from
that alone.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from metering.database import transaction
from metering.events.decoding import decode
from metering.quotas.calls import keys_of
from metering.quotas.verifying import verify_counters
from metering.rules.periods import PARIS, day_bounds, month_bounds
from metering.services import Services
from metering.tables import outbox, quota_epoch
from metering.valkey import connect
from reports.usage import UsageQuestion, read_usage
from tests.quotas.clocked import ClockedStore, Desk
from tests.quotas.conftest import declare

START = datetime(2026, 9, 29, 20, 30, tzinfo=UTC)
"""Half past ten in the evening in Paris: a day and a month end soon."""
USERS, MODELS = ("alice", "bob"), ("small", "large")
IDS = [f"r{number}" for number in range(9)]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

LIMITS = [
    ("user", "model:*", "requests", "minute", 4, "hard"),
    ("user", "model:*", "total_tokens", "day", 400, "hard"),
    ("tenant", "*", "total_tokens", "month", 900, "hard"),
    ("tenant", "*", "requests", "day", 5, "soft"),
    ("user", "*", "output_tokens", "credit", 700, "hard"),
    ("tenant", "*", "concurrent_requests", "now", 3, "hard"),
    ("tenant", "*", "cost_neur", "month", 2_000, "hard"),
]
PRICES = {"small": (1, 2), "large": (3, 5)}
"""nEUR of a token of input and of output, until they are doubled from the next day of the books on."""
DEARER_FROM = datetime(2026, 9, 29, 22, tzinfo=UTC)
EXTRA = ("user", "*", "input_tokens", "day", 150, "hard")
_tenants = itertools.count(1)
_events = itertools.count(1)

NAMES = ("scope", "subject", "selector", "meter", "window", "window_start", "value")
Key = tuple[str, ...]
"""Scope, subject, selector, meter, window: what tells a counter from others."""


def prices_of(model: str, at: datetime, is_dearer: bool) -> tuple[int, int]:
    """nEUR of a token of input and of output."""
    factor = 2 if is_dearer and at.astimezone(PARIS).date() >= DEARER_FROM.astimezone(PARIS).date() else 1
    of_input, of_output = PRICES[model]
    return factor * of_input, factor * of_output


def price_versions(tenant: str, valid_from: datetime, factor: int) -> str:
    lines = [
        f'- {{book: book-{tenant}, selector: "model:{model}", meter: {meter}, '
        f'price: "{Decimal(factor * nano).scaleb(-9):f}", '
        f"valid_from: {valid_from.isoformat()}}}"
        for model, prices in PRICES.items()
        for meter, nano in zip(("input_tokens", "output_tokens"), prices, strict=True)
    ]
    return "prices:\n" + "\n".join(lines) + "\n"


def catalogue(tenant: str, limits: list[tuple[Any, ...]]) -> str:
    rows = "".join(
        f'  - {{scope: {scope}, selector: "{selector}", meter: {meter}, window: {window}, value: {value}, '
        f"mode: {mode}}}\n"
        for scope, selector, meter, window, value, mode in limits
    )
    return f"""
categories:
- {{id: chat, name: Chat}}
models:
- {{id: small, name: Small, category: chat, publisher: P, licence: MIT}}
- {{id: large, name: Large, category: chat, publisher: P, licence: MIT}}
plans:
- id: plan-{tenant}
  name: Plan
  limits:
{rows}
tenants:
- {{id: {tenant}, name: T, plan: plan-{tenant}}}
price_books: [{{id: book-{tenant}, name: B, currency: EUR, vat: exempt, vat_reason: VATEX-EU-132}}]
platform: {{default_plan: plan-{tenant}, price_book: book-{tenant}}}
{price_versions(tenant, datetime(2026, 1, 1, tzinfo=UTC), 1)}
"""


@dataclass
class Hold:
    state: str
    content: tuple[Any, ...] | None
    granted: int
    figures: dict[Key, tuple[int, int]]
    amounts: dict[Key, list[Any]]
    """Key to window, amount, and what a token of output adds to it."""
    ends_at: datetime
    total: int = 0
    """Output that is held in all."""
    opened_at: datetime | None = None


@dataclass
class Entry:
    at: datetime
    user: str
    model: str
    amounts: dict[str, int]
    reservation: str | None = None
    cells: dict[Key, int] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)


def cell(at: datetime) -> int:
    return int(at.timestamp()) // 10


def window_of(window: str, at: datetime) -> Any:
    local = at.astimezone(PARIS)
    return {"minute": cell(at), "day": local.date(), "month": (local.year, local.month)}.get(window)


def window_start(window: str, value: Any) -> str:
    """Start of a day or month in Paris, as an event tells it."""
    start = day_bounds(value)[0] if window == "day" else month_bounds(*value)[0]
    return start.strftime("%Y-%m-%dT%H:%M:%SZ")


class Model:
    def __init__(self) -> None:
        self.limits = list(LIMITS)
        self.holds: dict[str, Hold] = {}
        self.entries: list[Entry] = []
        self.counted = 0
        """Entries, from the first on, that the counters have."""
        self.is_dearer = False
        self.told: dict[tuple[Any, ...], set[int]] = {}
        """Key, window and value to the thresholds that were told."""

    def places(self, user: str, model: str) -> dict[Key, tuple[int, str]]:
        """Counters that a request meets, with value and mode."""
        found = {}
        for scope, selector, meter, window, value, mode in self.limits:
            selected = f"model:{model}" if selector == "model:*" else selector
            found[scope, user if scope == "user" else "", selected, meter, window] = (value, mode)
        return found

    def totals(self, key: Key, now: datetime, *, of_the_ledger: bool = False) -> tuple[int, int]:
        scope, subject, selector, meter, window = key
        used = held = 0
        for entry in self.entries[: self.counted]:
            if (scope == "user" and entry.user != subject) or selector not in {"*", f"model:{entry.model}"}:
                continue
            there = entry.cells.get(key, cell(entry.at)) if window == "minute" else window_of(window, entry.at)
            if self.is_open(window, there, now):
                used += entry.amounts.get(meter, 0)
        for hold in () if of_the_ledger else self.holds.values():
            if key in hold.amounts and self.is_open(window, hold.amounts[key][0], now):
                used += hold.amounts[key][1] if hold.state == "c" else 0
                held += hold.amounts[key][1] if hold.state == "o" else 0
        return used, held

    @staticmethod
    def is_open(window: str, there: Any, now: datetime) -> bool:
        current = window_of(window, now)
        return current - 7 < there if window == "minute" else there == current

    def pass_time(self, now: datetime) -> None:
        for id_, hold in list(self.holds.items()):
            if hold.ends_at > now:
                continue
            if hold.state == "o":
                hold.state, hold.ends_at = "x", now + DAY
            else:
                del self.holds[id_]

    def output_adds(self, meter: str, model: str, now: datetime) -> int:
        """What a token of output adds to a meter."""
        price = prices_of(model, now, self.is_dearer)[1]
        return {"total_tokens": 1, "output_tokens": 1, "cost_neur": price}.get(meter, 0)

    def cost(self, model: str, at: datetime, tokens: tuple[int, int]) -> int:
        return sum(price * count for price, count in zip(prices_of(model, at, self.is_dearer), tokens, strict=True))

    def weigh(self, places: dict[Key, tuple[int, str]], fixed: dict[str, int], wanted: int, least: int,
              now: datetime, model: str) -> tuple[int | None, dict[Key, tuple[int, int]]]:  # fmt: skip
        granted: int | None = wanted
        figures = {}
        for key, (value, mode) in places.items():
            meter = key[3]
            used, held = figures[key] = self.totals(key, now)
            own, per_output = fixed.get(meter, 0), self.output_adds(meter, model, now) if wanted else 0
            room = value - used - held - own
            if mode == "hard" and (own or per_output):
                if room < least * per_output:
                    granted = None
                elif per_output and granted is not None:
                    granted = min(granted, room // per_output)
        return granted, figures

    def amounts(self, places: dict[Key, tuple[int, str]], by_meter: dict[str, int], now: datetime,
                model: str) -> dict[Key, list[Any]]:  # fmt: skip
        return {
            key: [
                window_of(key[4], now),
                by_meter.get(key[3], 0),
                self.output_adds(key[3], model, now),
            ]
            for key in places
        }

    def tell(self, keys: Iterable[Key], now: datetime, *, of_the_ledger: bool = False) -> None:
        """What is told when it is seen how much of some limits is used."""
        for key in keys:
            _scope, subject, _selector, _meter, window = key
            value, _mode = self.places(subject, key[2].removeprefix("model:"))[key]
            used = self.totals(key, now, of_the_ledger=of_the_ledger)[0]
            reached = [part for part in (50, 80, 100) if used >= value * part / 100]
            told = self.told.setdefault((key, window_of(window, now), value), set())
            if reached and max(reached) > max(told, default=0):
                told.add(max(reached))

    def touched(self, entries: list[Entry], now: datetime) -> set[Key]:
        """Counters of windows that are open to which entries add."""
        return {
            key
            for entry in entries
            for key in self.places(entry.user, entry.model)
            if key[4] in {"day", "month", "credit"} and window_of(key[4], entry.at) == window_of(key[4], now)
            if entry.amounts.get(key[3])
        }

    def settle(self, now: datetime, *, is_repeated: bool = False) -> None:
        touched = self.touched(self.entries[0 if is_repeated else self.counted :], now)
        self.count(now)
        self.tell(touched, now)

    def count(self, now: datetime) -> None:
        for entry in self.entries[self.counted :]:
            self.counted += 1
            if entry.reservation is None:
                continue
            hold = self.holds.get(entry.reservation)
            if hold is not None:
                entry.cells = {key: there for key, (there, *_) in hold.amounts.items() if key[4] == "minute"}
                hold.state, hold.amounts, hold.ends_at = "s", {}, now + HOUR
            elif now - entry.at < DAY:
                self.holds[entry.reservation] = Hold("s", None, 0, {}, {}, now + HOUR)

    def rebuild(self, now: datetime, *, is_reset: bool) -> None:
        if is_reset:
            self.holds.clear()
            self.counted = len(self.entries)
            for entry in self.entries:
                if entry.reservation is not None:
                    self.holds[entry.reservation] = Hold("s", None, 0, {}, {}, now + HOUR)
        else:
            self.count(now)
        for entry in self.entries:
            entry.cells = {}
        self.tell(self.touched(self.entries, now), now, of_the_ledger=True)


class Machine(RuleBasedStateMachine):
    def __init__(self, services: Services, client: redis.Redis) -> None:
        super().__init__()
        self.services, self.client = services, client
        self.tenant = f"t{next(_tenants)}"
        self.model = Model()
        self.recorded: list[tuple[dict[str, Any], Entry]] = []
        self.corrected: set[str] = set()
        self.copy: tuple[Any, ...] | None = None

    @initialize()
    def begin(self) -> None:
        declare(self.services, catalogue(self.tenant, self.model.limits))
        with transaction(self.services.engine) as connection:
            connection.execute(quota_epoch.delete())  # those of the machines before are in another time
        self.store = ClockedStore(self.client, START)
        self.desk = Desk(self.services, self.store, self.tenant)
        self.desk.settle()
        self.first_batch = self.desk.settled

    # What the gateway does

    @rule(id_=st.sampled_from(IDS), user=st.sampled_from(USERS), model=st.sampled_from(MODELS),
          prompt=st.sampled_from([0, 1, 30, 90]), output=st.sampled_from([0, 1, 60, 2_000]),
          ttl_s=st.sampled_from([20, 90]))  # fmt: skip
    def reserve(self, id_: str, user: str, model: str, prompt: int, output: int, ttl_s: int) -> None:
        now, content = self.store.now, (user, model, prompt, output, ttl_s)
        self.model.pass_time(now)
        reply, figures = self.desk.reserve(id_, prompt, output, user=user, model=model, ttl_s=ttl_s)
        told = {self.key(one.limit, user): (one.used, one.held) for one in figures}
        known = self.model.holds.get(id_)
        if known is not None:
            assert reply.status == ("ok" if known.content == content else "conflict")
            if known.content == content:
                assert reply.granted == known.granted
                if set(known.figures) == set(told):
                    assert told == known.figures
            return
        cost = self.model.cost(model, now, (prompt, 0))
        fixed = {"requests": 1, "concurrent_requests": 1, "input_tokens": prompt, "total_tokens": prompt,
                 "cost_neur": cost}  # fmt: skip
        places = self.model.places(user, model)
        granted, expected = self.model.weigh(places, fixed, output, min(1, output), now, model)
        assert told == expected
        assert (reply.status, reply.granted) == (("refused", 0) if granted is None else ("ok", granted))
        if granted is not None:
            cost = self.model.cost(model, now, (prompt, granted))
            by_meter = {**fixed, "total_tokens": prompt + granted, "output_tokens": granted, "cost_neur": cost}
            amounts = self.model.amounts(places, by_meter, now, model)
            ends_at = now + timedelta(seconds=ttl_s)
            self.model.holds[id_] = Hold("o", content, granted, told, amounts, ends_at, granted, now)

    @rule(id_=st.sampled_from(IDS), total=st.sampled_from([0, 1, 40, 70, 3_000]), times=st.sampled_from([1, 2]))
    def extend(self, id_: str, total: int, times: int) -> None:
        before = self.model.holds[id_].total if id_ in self.model.holds else 0
        for _ in range(times):
            self.extend_once(id_, total)
        if id_ in self.model.holds:
            assert self.model.holds[id_].total <= max(before, total)

    def extend_once(self, id_: str, total: int) -> None:
        now = self.store.now
        self.model.pass_time(now)
        hold = self.model.holds.get(id_)
        user, model = hold.content[:2] if hold and hold.content else ("alice", "small")
        reply = self.desk.extend(id_, total, user=user, model=model, ttl_s=40)
        if hold is None or hold.state != "o":
            assert reply.status == ("unknown" if hold is None else "closed")
            return
        places = {
            key: one
            for key, one in self.model.places(user, model).items()
            if self.model.output_adds(key[3], model, now)
        }
        more = max(total - hold.total, 0)
        granted, _figures = self.model.weigh(places, {}, more, min(1, more), now, model)
        if granted is not None:
            hold.ends_at, hold.total = now + timedelta(seconds=40), hold.total + granted
            for amount in hold.amounts.values():
                amount[1] += granted * amount[2]
        assert (reply.status, reply.granted) == ("refused" if granted is None else "ok", hold.total)

    @rule(
        id_=st.sampled_from(IDS),
        tokens_in=st.sampled_from([None, 0, 20, 35]),
        tokens_out=st.sampled_from([None, 0, 60, 300]),
    )
    def commit(self, id_: str, tokens_in: int | None, tokens_out: int | None) -> None:
        now = self.store.now
        self.model.pass_time(now)
        hold = self.model.holds.get(id_)
        user, model = hold.content[:2] if hold and hold.content else ("bob", "large")
        reply = self.desk.commit(id_, user=user, model=model, input_tokens=tokens_in, output_tokens=tokens_out)
        expected = {"o": "ok", "c": "ok", "s": "ok", "r": "closed", "x": "late"}
        assert reply.status == (expected[hold.state] if hold else "unknown")
        if hold is not None and hold.state not in "ox":
            return
        if hold is None:
            amounts = self.model.amounts(self.model.places(user, model), {}, now, model)
            hold = self.model.holds[id_] = Hold("x", None, 0, {}, amounts, now)
        known = [one for one in (tokens_in, tokens_out) if one is not None]
        is_counted = tokens_in is not None and tokens_out is not None
        cost = self.model.cost(model, now, (tokens_in or 0, tokens_out or 0)) if is_counted else None
        by_meter = {"cost_neur": cost, "requests": 1, "concurrent_requests": 0, "input_tokens": tokens_in,
                    "output_tokens": tokens_out,
                    "total_tokens": sum(known) if known else None}  # fmt: skip
        for key, amount in hold.amounts.items():
            if by_meter[key[3]] is not None:
                amount[1] = by_meter[key[3]]
        hold.state, hold.ends_at = "c", now + DAY

    @rule(id_=st.sampled_from(IDS))
    def release(self, id_: str) -> None:
        now = self.store.now
        self.model.pass_time(now)
        hold = self.model.holds.get(id_)
        expected = "unknown" if hold is None else "ok" if hold.state in "or" else "closed"
        assert self.desk.release(id_).status == expected
        if hold is not None and hold.state == "o":
            hold.state, hold.amounts, hold.ends_at = "r", {}, now + HOUR

    # What the ledger does

    @rule(id_=st.sampled_from([None, None, *IDS]), user=st.sampled_from(USERS), model=st.sampled_from(MODELS),
          age_s=st.sampled_from([0, 3, 65, 7_200]),
          tokens=st.sampled_from([(0, 0), (25, 40), (25, None), (None, None)]),
          status=st.sampled_from(["ok", "ok", "ok", "refused"]))  # fmt: skip
    def record(self, id_: str | None, user: str, model: str, age_s: int, tokens: tuple[int | None, int | None],
               status: str) -> None:  # fmt: skip
        at = self.store.now - timedelta(seconds=age_s)
        tokens_in, tokens_out = tokens
        data = {"tenant": self.tenant, "user": user, "model_requested": model, "model_served": model, "status": status,
                "operation": "chat", "started_at": at.isoformat(), "reservation": id_,
                "input_tokens": tokens_in, "output_tokens": tokens_out}  # fmt: skip
        event = {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": self.tenant, "id": f"e{next(_events)}",
            "time": at.isoformat(), "data": {name: value for name, value in data.items() if value is not None},
        }  # fmt: skip
        amounts = {"requests": int(status != "refused"), "input_tokens": tokens_in or 0,
                   "output_tokens": tokens_out or 0, "total_tokens": (tokens_in or 0) + (tokens_out or 0)}  # fmt: skip
        entry = Entry(at, user, model, amounts, id_, tokens=(tokens_in or 0, tokens_out or 0))
        amounts["cost_neur"] = self.model.cost(model, at, entry.tokens)
        self.offer(event)
        self.recorded.append((event, entry))
        self.model.entries.append(entry)

    def offer(self, event: dict[str, Any]) -> None:
        assert self.services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole

    @rule(number=st.integers(0, 30))
    def record_again(self, number: int) -> None:
        if self.recorded:
            self.offer(self.recorded[number % len(self.recorded)][0])

    @rule(number=st.integers(0, 30), tokens=st.sampled_from([None, 10, 100]))
    def correct(self, number: int, tokens: int | None) -> None:
        if not self.recorded:
            return
        event, entry = self.recorded[number % len(self.recorded)]
        if event["id"] in self.corrected:
            return
        self.corrected.add(event["id"])
        if tokens is None:
            self.services.corrections.void(self.tenant, event["id"], reason="wrong", author="a")
            delta = {meter: -amount for meter, amount in entry.amounts.items()}
            tokens_changed = (-entry.tokens[0], -entry.tokens[1])
        elif entry.amounts["input_tokens"] == tokens and "input_tokens" in event["data"]:
            return
        else:
            self.services.corrections.correct(
                self.tenant, event["id"], {"input_tokens": tokens}, reason="wrong", author="a"
            )
            change = tokens - entry.amounts["input_tokens"]
            tokens_changed = (change, 0)
            delta = {"input_tokens": change, "total_tokens": change,
                     "cost_neur": self.model.cost(entry.model, entry.at, tokens_changed)}  # fmt: skip
        self.model.entries.append(Entry(entry.at, entry.user, entry.model, delta, tokens=tokens_changed))

    @rule(is_repeated=st.booleans())
    def settle(self, is_repeated: bool) -> None:
        self.model.pass_time(self.store.now)
        self.desk.settle(self.first_batch if is_repeated else None)
        self.model.settle(self.store.now, is_repeated=is_repeated)

    # What goes wrong, or changes

    @rule()
    def lose_everything(self) -> None:
        self.client.flushall()
        self.model.rebuild(self.store.now, is_reset=True)

    @rule()
    def copy_the_store(self) -> None:
        keys = keys_of(self.tenant)
        self.copy = (keys, [self.client.dump(key) for key in keys], (self.desk.epoch, self.desk.operations))

    @rule()
    def restore_the_copy(self) -> None:
        if self.copy is None or self.copy[2] == (self.desk.epoch, self.desk.operations):
            return
        keys, contents, _seen = self.copy
        self.client.flushall()
        for key, content in zip(keys, contents, strict=True):
            if content is not None:
                self.client.restore(key, 0, content)
        self.model.rebuild(self.store.now, is_reset=True)

    @rule()
    def forget_the_script(self) -> None:
        self.client.script_flush()

    @rule(value=st.sampled_from([200, 400, 1_200]))
    def change_a_value(self, value: int) -> None:
        self.model.limits[1] = (*LIMITS[1][:4], value, "hard")
        declare(self.services, catalogue(self.tenant, self.model.limits))

    @rule()
    def change_the_limits(self) -> None:
        self.model.pass_time(self.store.now)
        self.model.limits = [one for one in self.model.limits if one != EXTRA] + (
            [] if EXTRA in self.model.limits else [EXTRA]
        )
        declare(self.services, catalogue(self.tenant, self.model.limits))
        self.model.rebuild(self.store.now, is_reset=False)

    @rule()
    def change_a_price(self) -> None:
        """What was used at the old price, on days that the new one is for, counts at the new one."""
        if self.model.is_dearer:
            return
        self.model.pass_time(self.store.now)
        declare(self.services, price_versions(self.tenant, DEARER_FROM, 2))
        self.model.is_dearer = True
        for entry in self.model.entries:
            entry.amounts["cost_neur"] = self.model.cost(entry.model, entry.at, entry.tokens)
        self.model.rebuild(self.store.now, is_reset=False)

    @rule(seconds=st.sampled_from([0.001, 1, 9.5, 10, 30, 61, 3_600, 5_400, 40_000, 90_000]))
    def pass_time(self, seconds: float) -> None:
        self.store.move(seconds=seconds)
        self.model.pass_time(self.store.now)

    # What always holds

    def key(self, limit: Any, user: str) -> Key:
        return limit.scope, user if limit.scope == "user" else "", limit.selector, limit.meter, limit.window

    @invariant()
    def every_counter_is_as_the_model_says(self) -> None:
        now = self.store.now
        self.model.pass_time(now)
        for user, model in itertools.product(USERS, MODELS):
            _reply, figures = self.desk.reserve("", 0, user=user, model=model, is_dry=True)
            for one in figures:
                assert (one.used, one.held) == self.model.totals(self.key(one.limit, user), now), one
                assert one.held >= 0

    @invariant()
    def every_open_hold_is_listed_once(self) -> None:
        now = self.store.now
        self.model.pass_time(now)
        expected = {id_: hold for id_, hold in self.model.holds.items() if hold.state == "o"}
        listed = self.desk.open_holds()
        assert [hold.expires_at for hold in listed] == sorted(hold.ends_at for hold in expected.values())
        assert len(listed) == len(expected)
        for one in listed:
            hold = expected[one.reservation]
            assert (one.user, one.model) == (hold.content or ())[:2]
            assert (one.granted_output_tokens, one.opened_at) == (hold.total, hold.opened_at)
            held = {(it.scope, it.subject or "", it.selector, it.meter, it.window): it.held for it in one.held}
            assert held == {key: amount for key, (_window, amount, _output) in hold.amounts.items()}

    @invariant()
    def every_threshold_is_told_once(self) -> None:
        query = sa.select(outbox.c.payload).where(outbox.c.tenant == self.tenant, outbox.c.channel == "webhook")
        with self.services.engine.connect() as connection:
            told = [
                (*(it["subject"] or "" if name == "subject" else it[name] for name in NAMES), it["threshold"])
                for it in connection.scalars(query)
            ]
        expected = [
            (*key, window and window_start(key[4], window), value, threshold)
            for (key, window, value), thresholds in self.model.told.items()
            for threshold in thresholds
        ]
        assert Counter(told) == Counter(expected)

    @rule()
    def compare_with_the_ledger(self) -> None:
        check = verify_counters(self.desk.builder, lambda *found: pytest.fail(str(found)))
        assert (check.tenants, check.unready) == (1, 0)

    def teardown(self) -> None:
        """In the end the counters are the ledger's sums."""
        if not hasattr(self, "desk"):
            return
        self.settle(False)
        self.compare_with_the_ledger()
        self.store.move(seconds=90)
        for _ in range(3):
            self.desk.standing()
        self.store.move(days=1, hours=1)
        now = self.store.now
        local = now.astimezone(PARIS)
        start, end = month_bounds(local.year, local.month)
        with transaction(self.services.engine) as connection:
            own = {"tenant": (self.tenant,)}
            month = read_usage(connection, UsageQuestion(start, end, filters=own))
            ever = read_usage(
                connection,
                UsageQuestion(datetime(2026, 1, 1, tzinfo=UTC), end, group_by=("user",), filters=own),
            )
        tokens = sum((row.quantities[name] or 0) for row in month for name in ("input_tokens", "output_tokens"))
        credit = {row.group["user"]: row.quantities["output_tokens"] or 0 for row in ever}
        for user in USERS:
            for _ in range(3):  # each call ends a bounded number of commits that nothing has confirmed
                stands = self.desk.standing(user)
            assert stands["tenant total_tokens/month"] == (tokens, 0)
            assert stands["user output_tokens/credit"] == (credit.get(user, 0), 0)
            assert stands["tenant concurrent_requests/now"] == (0, 0)


def run_machine(services: Services, *, examples: int) -> None:
    """Whatever Hypothesis thinks of, on the services' stores."""
    with connect(services.stores.redis_url) as client:
        run_state_machine_as_test(
            lambda: Machine(services, client),
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_counters_are_what_was_held_committed_and_recorded(services: Services) -> None:
    run_machine(services, examples=12)
