"""Conventions and limits in force, from a catalogue in memory."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.catalog import documents, limits
from metering.catalog.conventions import convention_in_force, term_bounds, terms_of_use
from metering.catalog.limits import SHAPES_MAX, limits_for_request, limits_of, live_overrides, window_bounds
from metering.catalog.snapshot import OverrideEntry, Snapshot, TenantEntry
from metering.rules.limits import Request, limits_for

NOON = datetime(2026, 11, 5, 11, tzinfo=UTC)
DAY = timedelta(days=1)
ASKING = Request("dinum", user="u", model="m")
BY_DAY = documents.Limit(scope="user", selector="model:*", meter="requests", window="day", value=100)
BY_TERM = documents.Limit(scope="tenant", meter="total_tokens", window="term", value=10**9)


def convention(**changes: Any) -> documents.Convention:
    """A convention of the year 2026."""
    plain = {
        "id": "2026-7", "tenant": "dinum", "title": "Convention", "funder": "DINUM", "signed_on": date(2025, 12, 1),
        "effective_on": date(2026, 1, 1), "starts_on": date(2026, 1, 1), "ends_on": date(2026, 12, 31),
        "settlement": "billed", "overage": "bill", "limits": [BY_TERM, BY_DAY],
    }  # fmt: skip
    return documents.Convention(**plain | ({"amends": "More."} if changes.get("version", 1) > 1 else {}) | changes)


def override(
    value: int | None, starts_at: datetime = NOON, ends_at: datetime | None = None, **changes: Any
) -> OverrideEntry:
    subject = changes.pop("subject", None)
    limit = msgspec.structs.replace(BY_DAY, value=value, **changes).rule(subject, "override")
    return OverrideEntry(f"o-{value}", "dinum", limit, starts_at, ends_at)


def catalogue(*parts: documents.Convention | OverrideEntry, plan: list[documents.Limit] | None = None) -> Snapshot:
    """A catalogue with one administration."""
    limits = [BY_DAY] if plan is None else plan
    return Snapshot(
        version=1, tenants={"dinum": TenantEntry("dinum", 1, "DINUM", "active", None)}, accounts={}, keys={}, tokens={},
        overrides={"dinum": [one for one in parts if isinstance(one, OverrideEntry)]},
        platform=documents.Platform(default_plan="free"),
        plans={"free": documents.Plan(id="free", name="Free", limits=limits)},
        conventions={"dinum": [one for one in parts if isinstance(one, documents.Convention)]},
        categories={}, models={}, aliases={}, retirements={}, experiments={}, terms=(), notices=(),
        price_books={}, prices=(),
    )  # fmt: skip


def values(snapshot: Snapshot, now: datetime, request: Request = ASKING) -> list[int | None]:
    return [limit.value for limit in limits_for_request(snapshot, request, now)]


def in_force(day: date, *versions: documents.Convention) -> tuple[str, int] | None:
    found = convention_in_force(catalogue(*versions), "dinum", day)
    return found and (found.id, found.version)


def test_a_convention_holds_from_its_first_day_to_its_last() -> None:
    days = [date(2025, 12, 31), date(2026, 1, 1), date(2026, 12, 31), date(2027, 1, 1)]
    assert [in_force(day, convention()) for day in days] == [None, ("2026-7", 1), ("2026-7", 1), None]


def test_an_amendment_holds_from_its_day_on_and_may_shorten_the_term() -> None:
    shorter = convention(version=2, effective_on=date(2026, 6, 1), ends_on=date(2026, 6, 30))
    for versions in ([convention(), shorter], [shorter, convention()]):
        assert in_force(date(2026, 5, 31), *versions) == ("2026-7", 1)
        assert in_force(date(2026, 6, 30), *versions) == ("2026-7", 2)
        assert in_force(date(2026, 7, 1), *versions) is None


def test_of_several_conventions_the_one_that_started_last_holds_alone() -> None:
    summer = convention(
        signed_on=date(2025, 6, 1),
        id="2026-9",
        starts_on=date(2026, 7, 1),
        effective_on=date(2026, 7, 1),
        ends_on=date(2026, 8, 31),
    )
    found = [in_force(date(2026, month, 15), convention(), summer) for month in (6, 7, 9)]
    assert found == [("2026-7", 1), ("2026-9", 1), ("2026-7", 1)]


def test_terms_of_use_follow_the_convention_then_the_plan() -> None:
    snapshot = catalogue(convention(tier="guaranteed", outage="closed", ends_on=date(2026, 11, 5)))
    # The books' day ends at 23:00 UTC in winter.
    last, after = datetime(2026, 11, 5, 22, 59, tzinfo=UTC), datetime(2026, 11, 5, 23, tzinfo=UTC)
    held, over = (terms_of_use(snapshot, "dinum", moment) for moment in (last, after))
    assert (held.tier, held.outage, held.plan.id) == ("guaranteed", "closed", "free")
    assert (over.convention, over.tier, over.outage) == (None, "free", "local")
    assert terms_of_use(snapshot, "others", last).convention is None


def test_limits_come_from_plan_convention_and_live_overrides() -> None:
    snapshot = catalogue(convention(), override(500, NOON, NOON + DAY), override(9, NOON - 2 * DAY, NOON - DAY))
    sources = [(limit.source, limit.window, limit.value) for limit in limits_of(snapshot, "dinum", NOON)]
    assert sources == [
        ("plan", "day", 100),
        ("convention", "term", 10**9),
        ("convention", "day", 100),
        ("override", "day", 500),
    ]


def test_an_override_holds_from_its_start_until_its_end_whatever_is_remembered() -> None:
    snapshot = catalogue(override(500, NOON, NOON + timedelta(hours=2)))
    moments = [NOON + timedelta(minutes=minutes) for minutes in (-1, 0, 119, 120, 60, -1)]
    assert [values(snapshot, moment) for moment in moments] == [[100], [500], [500], [100], [500], [100]]


def test_the_override_that_started_last_holds_and_gives_way_to_the_one_before() -> None:
    lower = override(5, NOON + DAY, NOON + 2 * DAY)
    for entries in ([override(500), lower], [lower, override(500)]):
        found = [values(catalogue(*entries), NOON + days * DAY) for days in (0, 1, 2)]
        assert found == [[500], [5], [500]]
    together = catalogue(override(500), override(400))
    assert [one.id for one in live_overrides(together, "dinum", NOON)] == ["o-400"]


def test_a_limit_of_the_term_holds_only_while_there_is_one() -> None:
    snapshot = catalogue(convention(), override(5, scope="tenant", selector="*", meter="pages", window="term"), plan=[])
    windows = [[limit.window for limit in limits_of(snapshot, "dinum", NOON + days * DAY)] for days in (0, 100)]
    assert windows == [["term", "day", "term"], []]


def test_a_new_catalogue_is_seen_at_once() -> None:
    before = catalogue()
    after = replace(before, overrides={"dinum": [override(0)]})
    assert [values(one, NOON) for one in (before, after, before)] == [[100], [0], [100]]


def test_unlimited_and_forbidden_are_kept_apart() -> None:
    assert values(catalogue(override(None)), NOON) == [None]
    assert values(catalogue(override(0)), NOON) == [0]


@given(
    st.lists(st.sampled_from(["u", "v", "w", None]), max_size=4),
    st.lists(
        st.builds(Request, st.just("dinum"), user=st.sampled_from(["u", "v", None]), model=st.sampled_from(["m", "n"])),
        min_size=1,
    ),
)
def test_what_is_remembered_is_what_the_rules_say(subjects, requests) -> None:
    snapshot = catalogue(*(override(place, subject=subject) for place, subject in enumerate(subjects)))
    for request in requests:
        expected = limits_for(request, limits_of(snapshot, "dinum", NOON))
        assert list(limits_for_request(snapshot, request, NOON)) == expected


def test_what_is_remembered_is_bounded() -> None:
    snapshot = catalogue()
    for number in range(SHAPES_MAX + 10):
        assert values(snapshot, NOON, Request("dinum", user="u", model=f"m-{number}")) == [100]
    assert len(limits._memory.by_tenant["dinum"].chosen) <= SHAPES_MAX


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        ("day", "2026-10-24T22:00", "2026-10-25T23:00"), ("month", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("term", "2025-12-31T23:00", "2026-12-31T23:00"),
    ],
)  # fmt: skip
def test_windows_have_bounds_in_the_books_time(window, start, end) -> None:
    bounds = window_bounds(window, convention(), datetime(2026, 10, 25, 12, tzinfo=UTC))
    assert bounds == tuple(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    assert term_bounds(convention()) == window_bounds("term", convention(), NOON)


@pytest.mark.parametrize("window", ["minute", "credit", "now", "term"])
def test_other_windows_have_none(window) -> None:
    assert window_bounds(window, None, NOON) is None
