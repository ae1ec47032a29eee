"""Which model answers to a name, until when and for whom."""

from datetime import UTC, datetime, timedelta

import pytest

from metering.catalog import documents
from metering.catalog.models import look_up, notices_for, resolve, retirements_announced
from metering.catalog.snapshot import Snapshot
from metering.errors import Forbidden, Gone, NotFound

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)

PHASES = [
    {"phase": "restricted", "starts_at": NOW, "ends_at": NOW + 10 * DAY, "tenants": ["dinum"]},
    {"phase": "open", "starts_at": NOW + 10 * DAY, "ends_at": NOW + 20 * DAY},
    {"phase": "closing", "starts_at": NOW + 25 * DAY, "ends_at": NOW + 30 * DAY},
]


def a_model(name: str, **more) -> documents.Model:
    given = {"name": name, "category": "small", "publisher": "P", "licence": "MIT"} | more
    return documents.Model(id=name, **given)


def an_experiment(name: str, *, phases: list | None = None, early: list[str] | None = None) -> documents.Experiment:
    return documents.Experiment(
        id=name, name=name, models=["trial"], early_access=early or [],
        phases=[documents.Phase(**phase) for phase in phases or []],
    )  # fmt: skip


def a_retirement(kind: str, subject: str, successor: str | None = None, days: int = 90) -> documents.Retirement:
    return documents.Retirement(
        kind=kind, subject=subject, successor=successor, announced_at=NOW, retires_at=NOW + days * DAY
    )


def a_catalog(
    *, retirements=(), experiments=(), notices=(), answering="new", trial_from: datetime | None = None
) -> Snapshot:
    models = [a_model("old"), a_model("new"), a_model("trial", category="empty", available_from=trial_from)]
    categories = [
        documents.Category(id="small", name="Small", model=answering),
        documents.Category(id="compact", name="Compact", model="new"),
        documents.Category(id="empty", name="Empty"),
    ]
    aliases = [documents.Alias(id="vendor/Old-7B", model="old"), documents.Alias(id="chat", category="small")]
    return Snapshot(
        version=1, tenants={}, accounts={}, keys={}, tokens={}, overrides={}, plans={}, conventions={}, terms=(),
        price_books={}, prices=(),
        platform=documents.Platform(default_plan="experimentation"),
        categories={one.id: one for one in categories},
        models={one.id: one for one in models},
        aliases={one.id: one for one in aliases},
        retirements={(one.kind, one.subject): one for one in retirements},
        experiments={one.id: one for one in experiments},
        notices=notices,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "subject", "model"),
    [
        ("old", "model", "old", "old"),
        ("vendor/Old-7B", "model", "old", "old"),
        ("small", "category", "small", "new"),
        ("chat", "category", "small", "new"),
    ],
)
def test_a_model_an_alias_or_a_category_may_be_named(name, kind, subject, model) -> None:
    found = resolve(a_catalog(), name, tenant="dinum", now=NOW)
    assert (found.requested, found.kind, found.subject, found.model.id) == (name, kind, subject, model)
    assert (found.retirement, found.status(NOW)) == (None, "available")


@pytest.mark.parametrize("name", ["words", "OLD", "", "empty"])
def test_an_unknown_name_and_a_category_without_a_model_are_not_found(name) -> None:
    with pytest.raises(NotFound) as error:
        resolve(a_catalog(), name, now=NOW)
    assert (error.value.code, error.value.field) == ("unknown_model", "model")
    assert not name or name not in error.value.detail


@pytest.mark.parametrize("name", ["old", "vendor/Old-7B"])
def test_a_retired_model_is_reachable_to_the_last_instant_and_then_names_its_successor(name) -> None:
    catalog = a_catalog(retirements=[a_retirement("model", "old", "new", days=30)])
    end = NOW + 30 * DAY
    last = resolve(catalog, name, now=end - TICK)
    assert (last.model.id, last.retirement.successor, last.status(end - TICK)) == ("old", "new", "retiring")
    with pytest.raises(Gone) as error:
        resolve(catalog, name, now=end)
    assert (error.value.status, error.value.code, error.value.expected) == (410, "model_retired", "new")
    assert error.value.detail == "The model old retired on 2026-12-01T12:00:00+00:00; its successor is new."
    assert look_up(catalog, name, end).status(end) == "retired"


def test_an_end_says_nothing_before_it_is_announced() -> None:
    catalog = a_catalog(retirements=[a_retirement("model", "old", "new")])
    before = look_up(catalog, "old", NOW - TICK)
    assert (before.retirement, before.status(NOW - TICK), retirements_announced(catalog, NOW - TICK)) == (
        None,
        "available",
        [],
    )
    assert [one.subject for one in retirements_announced(catalog, NOW)] == ["old"]


def test_a_category_answers_with_its_new_model_at_once_and_is_not_concerned_by_the_end_of_the_old() -> None:
    catalog = a_catalog(retirements=[a_retirement("model", "old", "new")])
    found = resolve(catalog, "small", now=NOW)
    assert (found.model.id, found.retirement, found.status(NOW)) == ("new", None, "available")
    assert resolve(catalog, "old", now=NOW).model.id == "old"


def test_a_category_outlives_its_model() -> None:
    catalog = a_catalog(retirements=[a_retirement("model", "old", "new", days=30)], answering="old")
    assert resolve(catalog, "small", now=NOW + 30 * DAY - TICK).model.id == "old"
    assert resolve(catalog, "small", now=NOW + 30 * DAY).model.id == "new"
    orphaned = a_catalog(retirements=[a_retirement("model", "old", days=30)], answering="old")
    with pytest.raises(Gone, match=r"The model old retired on [^;]*\.$"):
        resolve(orphaned, "small", now=NOW + 30 * DAY)


@pytest.mark.parametrize("name", ["small", "chat"])
def test_a_retired_category_answers_with_its_own_model_for_ninety_days(name) -> None:
    catalog = a_catalog(retirements=[a_retirement("category", "small", "compact")])
    last = resolve(catalog, name, now=NOW + 90 * DAY - TICK)
    assert (last.model.id, last.retirement.successor) == ("new", "compact")
    with pytest.raises(Gone, match="The category small retired on 2027-01-30T12:00:00") as error:
        resolve(catalog, name, now=NOW + 90 * DAY)
    assert error.value.expected == "compact"
    assert resolve(catalog, "new", now=NOW + 90 * DAY).model.id == "new", "its models stay"


def test_a_model_to_come_is_for_early_access_only() -> None:
    catalog = a_catalog(trial_from=NOW + DAY, experiments=[an_experiment("e", early=["dinum"])])
    assert resolve(catalog, "trial", tenant="dinum", now=NOW).status(NOW) == "coming"
    with pytest.raises(Forbidden) as error:
        resolve(catalog, "trial", tenant="sante", now=NOW + DAY - TICK)
    assert error.value.code == "model_not_available_yet"
    assert "2026-11-02T12:00:00+00:00" in error.value.detail
    assert resolve(catalog, "trial", tenant="sante", now=NOW + DAY).status(NOW + DAY) == "available"
    assert resolve(catalog, "trial", now=NOW).model.id == "trial", "the platform's staff"


@pytest.mark.parametrize(
    ("day", "listed", "other"),
    [
        (-1, "experiment_restricted", "experiment_restricted"),
        (0, None, "experiment_restricted"),
        (9, None, "experiment_restricted"),
        (10, None, None),
        (20, "experiment_restricted", "experiment_restricted"),
        (25, None, None),
        (30, "experiment_over", "experiment_over"),
    ],
)
def test_an_experiment_lets_in_whom_its_phase_takes(day, listed, other) -> None:
    catalog = a_catalog(experiments=[an_experiment("e", phases=PHASES)])
    for tenant, expected in (("dinum", listed), ("sante", other)):
        if expected is None:
            assert resolve(catalog, "trial", tenant=tenant, now=NOW + day * DAY).model.id == "trial"
        else:
            with pytest.raises(Forbidden) as error:
                resolve(catalog, "trial", tenant=tenant, now=NOW + day * DAY)
            assert error.value.code == expected


def test_early_access_comes_before_the_first_phase_and_any_experiment_may_let_in() -> None:
    early = an_experiment("e", phases=PHASES, early=["sante"])
    assert resolve(a_catalog(experiments=[early]), "trial", tenant="sante", now=NOW - DAY)
    with pytest.raises(Forbidden):
        resolve(a_catalog(experiments=[early]), "trial", tenant="sante", now=NOW)
    second = an_experiment("f", phases=[PHASES[0] | {"tenants": ["sante"]}])
    assert resolve(a_catalog(experiments=[early, second]), "trial", tenant="sante", now=NOW)


def test_notices_are_those_of_an_administration_that_are_not_over() -> None:
    def a_notice(name: str, start: int, end: int | None, tenants: list[str]) -> documents.Notice:
        return documents.Notice(
            id=name, kind="incident", title_fr="T", title_en="T", text_fr="X", text_en="X", tenants=tenants,
            starts_at=NOW + start * DAY, ends_at=None if end is None else NOW + end * DAY,
        )  # fmt: skip

    catalog = a_catalog(
        notices=(
            a_notice("over", -2, 0, []), a_notice("coming", 5, 6, []), a_notice("live", -1, 1, []),
            a_notice("endless", -3, None, ["sante"]),
        )
    )  # fmt: skip
    assert [one.id for one in notices_for(catalog, "dinum", NOW)] == ["live", "coming"]
    assert [one.id for one in notices_for(catalog, "sante", NOW)] == ["endless", "live", "coming"]
    assert [one.id for one in notices_for(catalog, None, NOW)] == ["endless", "live", "coming"]
