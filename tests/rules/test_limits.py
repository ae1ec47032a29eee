"""Which limits hold for a request, and which goes before which."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.limits import (
    METERS,
    UNITS,
    Limit,
    Request,
    faults_of,
    is_raise,
    limits_about,
    limits_for,
    present_limit,
)
from metering.rules.quantities import QUANTITY_MAX

SUBJECTS = {"tenant": ["t"], "project": ["p", "q"], "user": ["u", "v"], "key": ["k"]}
NAMES = {"model": ["m", "n"], "category": ["c"], "operation": ["chat"]}
SELECTORS = ["*", *(f"{kind}:{name}" for kind, names in NAMES.items() for name in ["*", *names])]


def maybe(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *values])


@st.composite
def a_limit(draw: st.DrawFn) -> Limit:
    scope = draw(st.sampled_from(list(SUBJECTS)))
    return Limit(
        scope, draw(st.sampled_from(SELECTORS)), draw(st.sampled_from(["requests", "pages"])),
        draw(st.sampled_from(["minute", "day"])), draw(st.sampled_from([None, 0, 1, 2])),
        draw(st.sampled_from(["hard", "soft", "shadow"])), draw(maybe(SUBJECTS[scope])),
        draw(st.sampled_from(["override", "convention", "plan"])),
    )  # fmt: skip


requests = st.builds(
    Request,
    st.just("t"),
    *(maybe(SUBJECTS[scope]) for scope in ("project", "user", "key")),
    *(maybe(NAMES[kind]) for kind in NAMES),
)
limit_lists = st.lists(a_limit(), max_size=14)


def takes(request: Request, limit: Limit) -> bool:
    """Said once more, in other words."""
    subject = {"tenant": request.tenant, "project": request.project, "user": request.user, "key": request.key}
    own = subject[limit.scope]
    named = {f"model:{request.model}", f"category:{request.category}", f"operation:{request.operation}", "*"}
    each = {f"{kind}:*" for kind in NAMES if getattr(request, kind) is not None}
    return own is not None and limit.subject in {None, own} and limit.selector in named | each


def place(limit: Limit, request: Request) -> tuple[str, str, str, str]:
    kind, _, name = limit.selector.partition(":")
    selector = f"{kind}:{getattr(request, kind)}" if name == "*" else limit.selector
    return limit.scope, selector, limit.meter, limit.window


@given(requests, limit_lists)
def test_one_limit_holds_for_each_place_that_takes_the_request_and_none_else(request, limits) -> None:
    found = limits_for(request, limits)
    places = [place(limit, request) for limit in found]
    assert len(set(places)) == len(places)
    assert set(places) == {place(limit, request) for limit in limits if takes(request, limit)}
    for limit in found:
        kind = limit.selector.partition(":")[0]
        assert takes(request, limit)
        assert limit in limits or replace(limit, selector=f"{kind}:*") in limits


@given(requests, limit_lists)
def test_no_limit_holds_that_another_goes_before(request, limits) -> None:
    order = ("override", "convention", "plan")
    for limit in limits_for(request, limits):
        rivals = [one for one in limits if takes(request, one) and place(one, request) == place(limit, request)]
        if any(one.selector == limit.selector for one in rivals):  # one that names it: those for each are out
            rivals = [one for one in rivals if one.selector == limit.selector]
        strongest = min(order.index(one.source) for one in rivals)
        assert order.index(limit.source) == strongest
        rivals = [one for one in rivals if order.index(one.source) == strongest]
        assert (limit.subject is None) == all(one.subject is None for one in rivals)
        same = [one for one in rivals if one.subject == limit.subject]
        assert limit.value == min((one.value for one in same if one.value is not None), default=None)


@given(requests, limit_lists, st.randoms())
def test_the_order_in_which_limits_come_never_matters(request, limits, random) -> None:
    shuffled = limits.copy()
    random.shuffle(shuffled)
    assert limits_for(request, shuffled) == limits_for(request, limits)
    assert limits_about(request, shuffled) == limits_about(request, limits)


@given(requests, limit_lists)
def test_what_a_request_leaves_open_stands_for_any(request, limits) -> None:
    if None not in (request.project, request.user, request.key, request.model, request.category, request.operation):
        assert limits_about(request, limits) == limits_for(request, limits)
    shown = limits_about(Request("t"), limits)
    written = {
        (one.scope, one.selector, one.meter, one.window, "t" if one.scope == "tenant" else one.subject)
        for one in limits
    }
    assert len(shown) == len(written)
    assert set(shown) <= set(limits)


@given(a_limit(), limit_lists)
def test_the_present_limit_is_the_one_that_a_request_meets(wanted, limits) -> None:
    kind, _, name = wanted.selector.partition(":")
    if name == "*" or wanted.subject is None:
        present = present_limit(wanted, limits)
        assert present is None or present.subject in {None, wanted.subject}
        return
    named = {kind: name} if name else {}
    met = limits_for(Request(**{"tenant": "t", wanted.scope: wanted.subject}, **named), limits)
    fitting = [one for one in met if (one.scope, one.selector, one.meter, one.window) == place(wanted, Request("t"))]
    present = present_limit(wanted, limits)
    assert [replace(present, selector=wanted.selector)] == fitting if present else fitting == []


EACH_MODEL = Limit("user", "model:*", "requests", "day", 10, "hard")
ASKING = Request("t", user="u", model="m")


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (replace(EACH_MODEL, value=99, source="convention"), EACH_MODEL),
        (replace(EACH_MODEL, value=99, source="override"), replace(EACH_MODEL, source="convention")),
        (replace(EACH_MODEL, value=99, selector="model:m"), replace(EACH_MODEL, source="override", subject="u")),
        (replace(EACH_MODEL, value=99, source="override", subject="u"), replace(EACH_MODEL, source="override")),
        (replace(EACH_MODEL, value=99), replace(EACH_MODEL, value=None)),
        (replace(EACH_MODEL, value=99), replace(EACH_MODEL, value=99, mode="soft")),
        (replace(EACH_MODEL, value=0, source="override"), EACH_MODEL),
        (replace(EACH_MODEL, value=None, source="override"), EACH_MODEL),
    ],
)
def test_one_goes_before_the_other(stronger, weaker) -> None:
    expected = [replace(stronger, selector="model:m")]
    assert limits_for(ASKING, [stronger, weaker]) == limits_for(ASKING, [weaker, stronger]) == expected


def test_ones_own_limit_is_shown_beside_every_ones_and_present_for_nobody_else() -> None:
    own = replace(EACH_MODEL, value=99, source="override", subject="u")
    assert limits_about(Request("t"), [own, EACH_MODEL]) == [EACH_MODEL, own]
    present = {user: present_limit(replace(own, subject=user), [own, EACH_MODEL]) for user in ("u", "v", None)}
    assert present == {"u": own, "v": EACH_MODEL, None: EACH_MODEL}


def test_limits_of_other_windows_meters_and_scopes_hold_beside_each_other() -> None:
    beside = [
        EACH_MODEL, replace(EACH_MODEL, window="minute"), replace(EACH_MODEL, meter="pages"),
        replace(EACH_MODEL, scope="tenant"), replace(EACH_MODEL, selector="*"),
    ]  # fmt: skip
    assert len(limits_for(ASKING, beside)) == len(beside)


def test_scopes_come_from_the_widest_to_the_narrowest() -> None:
    limits = [replace(EACH_MODEL, scope=scope) for scope in ("key", "user", "project", "tenant")]
    found = limits_for(Request("t", "p", "u", "k", "m"), limits)
    assert [limit.scope for limit in found] == ["tenant", "project", "user", "key"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"selector": "model"}, "selector"), ({"selector": "model:"}, "selector"), ({"selector": "x:y"}, "selector"),
        ({"selector": "*:*"}, "selector"), ({"value": -1}, "value"), ({"value": QUANTITY_MAX + 1}, "value"),
        ({"window": "now"}, "window"), ({"meter": "concurrent_requests"}, "window"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_by_its_field(changes, field) -> None:
    assert [name for name, _expected in faults_of(replace(EACH_MODEL, **changes))] == [field]


@given(a_limit())
def test_every_limit_that_is_tried_here_makes_sense(limit) -> None:
    assert faults_of(limit) == []


def test_a_raise_allows_more() -> None:
    assert is_raise(11, EACH_MODEL)
    assert is_raise(None, EACH_MODEL)
    assert not is_raise(10, EACH_MODEL)
    assert not is_raise(0, EACH_MODEL)
    unlimited = replace(EACH_MODEL, value=None)
    assert not is_raise(None, unlimited)
    assert not is_raise(11, unlimited)
    assert is_raise(1, replace(EACH_MODEL, value=0))


def test_every_meter_has_a_unit() -> None:
    assert tuple(UNITS) == METERS
