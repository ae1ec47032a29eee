"""The overview: what it says of use, money, emissions, limits, keys and envelopes, and that readings are made ahead."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from metering.identity import Principal
from reports.journal_api import Cost
from reports.kept import Kept
from reports.overview import Amounts, EndingKey, EnvelopeLeft, Overview, Told, overview_selection
from reports.overview_page import OverviewPage, overview_page
from reports.standing import LimitRule, Standing
from tests.pages.footprints import footprint_row
from tests.pages.samples import NEWS, NOW, RECORDED_AT, row

FIXED, NARROW = "\u00a0", "\u202f"
MANAGER = Principal("m-1", "manager", "dinum", "m-1")
OPERATOR = Principal("operator", "operator")
DAY = datetime(2026, 10, 1, 22, tzinfo=UTC)
OVERVIEW = Overview(
    use=[
        row(DAY, {"project": "assistant"}, requests=30, requests_error=2, input_tokens=900, output_tokens=100),
        row(DAY, {"project": None}, requests=5, uncounted_requests=2),
    ],
    emissions=[
        footprint_row(None, {"project": "assistant"}, unknown=3),
        footprint_row(None, {"project": None}, unknown=5, kwh=None),
    ],
    newest=(12, RECORDED_AT),
    posted_until=NOW,
    ending=[EndingKey("clé", "dinum", "u-1", NOW + timedelta(days=4, hours=1))],
    ending_count=3,
    news=NEWS,
    administration="Direction",
)


def page(told: Told | None = None, reader: Principal = MANAGER, **changes: Any) -> OverviewPage:
    selection = overview_selection(NOW, reader, "fr")
    found = replace(OVERVIEW, **changes)
    if reader.role == "operator":  # told by administration
        groups = [replace(one, group={"tenant": next(iter(one.group.values()))}) for one in found.use]
        found = replace(found, use=groups, emissions=[], administration=None)
    return overview_page(selection, found, told or Told(), reader, NOW)


def headlines(shown: OverviewPage) -> dict[str, tuple[str | None, str]]:
    return {one.label: (one.value, one.note) for one in shown.headlines}


def test_figures_say_what_they_lack() -> None:
    found = headlines(page())
    assert found["Requêtes"] == ("35", "dont 2 non abouties")
    tokens, note = found["Jetons"]
    assert tokens == f"1{NARROW}000"
    assert note.endswith(f"sans 2{FIXED}requêtes dont la consommation n’est pas connue")
    assert found["Durée audio"] == (None, "")
    emitted, note = found["Émissions"]
    assert emitted == "300"
    assert note == f"de 150 à 600{FIXED}g{FIXED}CO2e · sans 8{FIXED}requêtes, dont les émissions ne sont pas mesurées"


def test_unmeasured_emissions_are_unknown_and_never_zero() -> None:
    shown = page(emissions=[footprint_row(None, {"project": "assistant"}, unknown=10, kwh=None)])
    assert headlines(shown)["Émissions"][0] is None
    assert shown.ranking[0].emissions.value is None
    assert headlines(page(emissions=[]))["Émissions"] == (None, "")


def test_what_is_billed_stands_apart_from_what_is_only_valued() -> None:
    month = date(2026, 10, 1)
    amounts = Amounts(month, billed=[Cost(1_234_560_000_000, "EUR")], valued=[Cost(5 * 10**7, "EUR")], gaps=2)
    shown = page(Told(amounts))
    found = headlines(shown)
    assert found["À facturer, octobre 2026"][0] == f"1{NARROW}234,56{FIXED}€"
    assert found["Valorisé, non facturé, octobre 2026"][0] == f"0,05{FIXED}€"
    assert "indicatifs" in shown.notes[0]
    assert shown.notes[1].startswith("Usages sans montant, absents de ces chiffres\u00a0: 2")
    unpriced = headlines(page(Told(Amounts(month, gaps=1))))
    assert unpriced["À facturer, octobre 2026"] == (None, "aucun prix n’est fixé pour cet usage")
    assert headlines(page(Told(Amounts(month))))["À facturer, octobre 2026"][0] == "rien"
    member = headlines(page(Told(amounts), Principal("u-1", "member", "dinum", "u-1")))
    assert "À facturer, octobre 2026" not in member


def test_the_ranking_leads_to_the_figures_of_one_project() -> None:
    first, second = page().ranking
    assert (first.name, first.share, first.tokens) == ("assistant", f"100{NARROW}%", f"1{NARROW}000")
    assert first.url is not None
    assert "project=assistant" in first.url
    assert (second.name, second.url, second.tokens, second.share) == ("non renseigné", None, None, None)
    rows = [row(DAY, {"tenant": f"t-{number}"}, requests=number) for number in range(15)]
    ranked = page(reader=OPERATOR, use=rows).ranking
    assert [one.name for one in ranked[:2]] == ["t-14", "t-13"]
    assert len(ranked) == 10


def test_limits_that_are_nearly_used_up_are_shown_and_others_are_not() -> None:
    def standing(used: int) -> Standing:
        rule = LimitRule("tenant", None, "*", "requests", "day", "hard", 100)
        return Standing(rule, used, 0, 100 - used, NOW + timedelta(hours=3))

    near = page(Told(standings=[standing(79), standing(80), standing(100)])).meters
    assert near is not None
    assert [(one.percent, one.mark) for one in near] == [(100, "atteinte"), (80, "bientôt atteinte")]
    assert page(Told(standings=[standing(79)])).limits_why == f"Aucune limite n’est utilisée à 80{FIXED}% ou plus."
    assert "indisponibles" in page().limits_why
    assert "choisissez-la" in page(reader=OPERATOR).limits_why


def test_keys_that_end_soon_say_in_how_many_days() -> None:
    shown = page()
    assert [(one.name, one.owner, one.soon) for one in shown.ending] == [("clé", "u-1", "dans 4 jours")]
    assert shown.ending_why == "Et 2 autres."
    assert page(reader=OPERATOR).ending[0].owner == "dinum"
    assert page(ending=[], ending_count=0).ending_why == "Aucune clé n’expire dans les 30 jours."


def test_an_envelope_says_how_far_it_reaches() -> None:
    euro = 10**9
    envelope = EnvelopeLeft(
        "c-1", "Convention", date(2026, 12, 31), "cost_neur", 1_000 * euro, 250 * euro,
        (1_200 * euro, 900 * euro, 1_500 * euro), date(2026, 12, 1), 4,
    )  # fmt: skip
    (line,) = page(Told(envelopes=[envelope])).envelopes
    assert line.used == f"250,00{FIXED}€ utilisés sur 1{NARROW}000,00{FIXED}€"
    assert line.percent == 25
    assert line.likely.endswith(f"(de 900,00 à 1{NARROW}500,00{FIXED}€) au 31 décembre 2026.")
    assert "1er décembre 2026" in line.notes[0]
    mixed = replace(envelope, meter="carbon_ugco2e", consumed=None, likely=None, runs_out_on=None, unknown=0)
    (line,) = page(Told(envelopes=[mixed])).envelopes
    assert (line.used, line.percent, line.notes) == (None, None, ())
    assert line.likely.startswith("Aucune prévision")


def test_an_empty_overview_says_why_and_what_to_do() -> None:
    empty = page(use=[], emissions=[]).empty
    assert empty is not None
    assert empty.links[0].url.startswith("/usage?")
    first = page(reader=OPERATOR, use=[], emissions=[], newest=None, posted_until=None)
    assert first.empty is not None
    assert first.empty.is_new
    assert first.as_of.startswith("Le registre ne contient aucune écriture.")


# Readings made ahead


def kept(work: Callable[[], Any], *, long_s: float, times: int) -> list[Any]:
    async def run() -> list[Any]:
        keeper: Kept[Any] = Kept(long_s=long_s, every_s=60)
        async with keeper.running(work):
            return [await keeper.get(work) for _ in range(times)]

    return asyncio.run(run())


def test_short_readings_are_made_when_asked_for_and_long_ones_ahead() -> None:
    calls = iter(range(100))
    assert len(set(kept(lambda: next(calls), long_s=60, times=3))) == 3

    def long() -> int:
        time.sleep(0.01)
        return next(calls)

    first, *rest = kept(long, long_s=0, times=4)
    assert len(set(rest)) == 1
    assert rest[0] - first <= 1


def test_a_reading_that_fails_is_told_to_who_asks_and_tried_again() -> None:
    outcomes = iter([ValueError("away"), ValueError("away"), 7])

    def read() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    async def run() -> int:
        keeper: Kept[int] = Kept(long_s=60)
        async with keeper.running(read):
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="away"):
                await keeper.get(read)
            return await keeper.get(read)

    assert asyncio.run(run()) == 7
