"""Who gets an account, which terms must be accepted, when the end of a key is told."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.access import (
    House,
    Phase,
    Request,
    Verdict,
    acceptable,
    demands,
    demands_until,
    expiry_step,
    judge,
    unmet,
)

NOW = datetime(2026, 10, 5, 8, tzinfo=UTC)
DAY = timedelta(days=1)
HOUSE = House(frozenset({"1"}), frozenset({"house.example"}))


def request(kind: Any = "individual", siret: str | None = None, domain: str = "other.example") -> Request:
    return Request(kind, siret, domain)


@pytest.mark.parametrize(
    ("siret", "domain", "is_house"),
    [
        (None, "house.example", True),
        (None, "team.house.example", True),
        ("1", "house.example", True),
        ("2", "house.example", False),
        ("1", "other.example", False),
        (None, "nothouse.example", False),
        (None, "house.example.attacker", False),
        (None, "example", False),
    ],
)
def test_the_house_is_known_by_the_domain_of_an_address(siret, domain, is_house) -> None:
    verdict = judge(request(siret=siret, domain=domain), HOUSE, "none", None, NOW)
    assert verdict == Verdict("approved" if is_house else "pending")


@pytest.mark.parametrize(("siret", "is_house"), [("1", True), ("2", False), (None, False)])
def test_the_house_is_known_by_a_siret_that_the_identity_provider_proves(siret: str | None, is_house: bool) -> None:
    asked = Request("individual", siret, "other.example", siret_is_proven=True)
    assert judge(asked, HOUSE, "none", None, NOW) == Verdict("approved" if is_house else "pending")
    assert judge(asked, HOUSE, "soft", None, NOW) == Verdict("delayed", "overload")


def test_without_listed_administrations_the_domain_is_enough() -> None:
    house = House(frozenset(), frozenset({"house.example"}))
    assert judge(request(siret="2", domain="house.example"), house, "none", None, NOW) == Verdict("approved")


@pytest.mark.parametrize("load", ["none", "batch", "free", "soft", "guaranteed"])
def test_under_overload_individuals_wait_the_house_too_and_partners_are_validated(load) -> None:
    waits = load not in {"none", "batch"}
    assert judge(request(), HOUSE, load, None, NOW) == (Verdict("delayed", "overload") if waits else Verdict("pending"))
    of_house = judge(request(domain="house.example"), HOUSE, load, None, NOW)
    assert of_house == (Verdict("delayed", "overload") if waits else Verdict("approved"))
    assert judge(request("partner", domain="house.example"), HOUSE, load, None, NOW) == Verdict("pending")


def phases(*, listed: bool) -> list[Phase]:
    return [
        Phase("restricted", NOW, NOW + DAY, listed),
        Phase("open", NOW + DAY, NOW + 2 * DAY, False),
        Phase("closing", NOW + 3 * DAY, NOW + 4 * DAY, False),
    ]


@pytest.mark.parametrize(
    ("after_days", "reason", "reason_listed"),
    [
        (-1, "not_begun", "not_begun"),
        (0, "restricted", None),
        (1, None, None),
        (2, "not_begun", "not_begun"),
        (3, "closing", "closing"),
        (4, "over", "over"),
    ],
)
def test_an_experiment_takes_in_by_its_phase(after_days, reason, reason_listed) -> None:
    now = NOW + after_days * DAY
    for listed, expected in ((False, reason), (True, reason_listed)):
        verdict = judge(request(), HOUSE, "none", phases(listed=listed), now)
        assert verdict == (Verdict("pending") if expected is None else Verdict("refused", expected))


def test_an_experiment_refuses_before_an_overload_delays() -> None:
    assert judge(request(), HOUSE, "free", [], NOW) == Verdict("refused", "over")


class Version(NamedTuple):
    document: str
    version: str
    effective_at: datetime
    enforced_at: datetime


def version(name: str, effective_days: int, enforced_days: int, document: str = "terms") -> Version:
    return Version(document, name, NOW + effective_days * DAY, NOW + enforced_days * DAY)


ONE, TWO, THREE = version("1", 0, 0), version("2", 10, 30), version("3", 50, 60)
POLICY = version("p", 5, 5, "data_policy")


@pytest.mark.parametrize(
    ("day", "names"),
    [(-1, ["p", "1", "2", "3"]), (9, ["p", "1", "2", "3"]), (10, ["p", "2", "3"]), (50, ["p", "3"]), (99, ["p", "3"])],
)
def test_the_current_and_the_coming_versions_may_be_accepted(day, names) -> None:
    found = acceptable([THREE, ONE, POLICY, TWO], NOW + day * DAY)
    assert [one.version for one in found] == names


@pytest.mark.parametrize(
    ("day", "accepted", "missing"),
    [
        (-1, (), []),
        (0, (), ["1"]),
        (0, ("1",), []),
        (29, ("1",), []),
        (29, ("2",), []),
        (29, (), ["2"]),
        (30, ("1",), ["2"]),
        (30, ("2",), []),
        (30, ("3",), []),
        (55, ("1",), ["3"]),
        (60, ("2",), ["3"]),
    ],
)
def test_a_version_is_demanded_once_enforced_and_a_later_one_does_as_well(day, accepted, missing) -> None:
    wanted = demands([TWO, THREE, ONE], NOW + day * DAY)
    assert unmet(wanted, {("terms", name) for name in accepted}) == [("terms", name) for name in missing]


def test_every_document_is_demanded_for_itself() -> None:
    wanted = demands([ONE, POLICY], NOW + 5 * DAY)
    assert unmet(wanted, {("terms", "1")}) == [("data_policy", "p")]


@given(
    versions=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from(["terms", "data_policy"]))),
    day=st.integers(-5, 105),
    later=st.integers(0, 100),
)
def test_demands_stay_until_the_instant_that_is_told(versions, day, later) -> None:
    listed = [
        version(str(number), start, start + length, document)
        for number, (start, length, document) in enumerate(versions)
    ]
    now = NOW + day * DAY
    until = demands_until(listed, now)
    assert until is None or until > now
    if until is None or now + later * DAY < until:
        assert demands(listed, now + later * DAY) == demands(listed, now)


@pytest.mark.parametrize(
    ("left", "step"),
    [
        (timedelta(days=30, seconds=1), None),
        (timedelta(days=30), 30),
        (timedelta(days=7, seconds=1), 30),
        (timedelta(days=7), 7),
        (timedelta(days=1), 1),
        (timedelta(seconds=1), 1),
        (timedelta(0), None),
        (timedelta(days=-1), None),
    ],
)
def test_the_end_of_a_key_is_told_in_steps(left, step) -> None:
    assert expiry_step(NOW + left, NOW) == step
