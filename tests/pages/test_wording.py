"""Both languages say everything, and numbers, durations and dates are said as each language does."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args

import pytest

from metering.billing.periods import State
from metering.catalog.access import RequestState
from metering.identity import Role
from metering.rules.access import Overload
from metering.rules.billing.documents import DocumentKind
from metering.rules.billing.reviewing import Anomaly
from metering.rules.carbon.tiers import TIERS
from metering.rules.limits import METERS, MODES, SCOPES, SOURCES, WINDOWS
from metering.rules.periods import PARIS
from metering.rules.quantities import OPERATIONS, QUANTITIES, STATUSES
from metering.rules.rating.lines import LineKind
from metering.rules.rating.meters import PRICE_METERS
from metering.rules.rating.months import Billing
from metering.visiting import Way
from reports import wording
from reports.carbon_page import SERIES
from reports.figures import TOTAL_TOKENS
from reports.limits_said import OWN_NAMES, meter_name
from reports.method_pages import GLOSSARY
from reports.selection import BUCKETS, FILTERS, GROUPS
from reports.wording import DICTIONARIES, LANGUAGES, say

WORDING = Path(wording.__file__).parent
CONSOLE = WORDING.parents[1] / "metering" / "console"
NARROW, FIXED = "\u202f", "\u00a0"


def fields(sentence: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", sentence))


def test_both_dictionaries_hold_the_same_keys_and_the_same_values_to_fill_in() -> None:
    french, english = DICTIONARIES["fr"], DICTIONARIES["en"]
    assert set(french) == set(english)
    assert {key: fields(french[key]) for key in french} == {key: fields(english[key]) for key in english}


def words_of_sheets() -> set[str]:
    """Words made of parts on the pages of documents, people and administration."""
    built = {f"admin.access.{kind}" for kind in ("individual", "partner", "invitation")}
    built |= {f"admin.access.state.{state}" for state in get_args(RequestState)}
    built |= {f"admin.{kind}.{act}.done" for kind in ("access", "raises") for act in ("approve", "refuse")}
    built |= {f"admin.settlement.{name}" for name in ("billed", "prepaid", "envelope")}
    built |= {f"admin.overage.{name}" for name in ("block", "throttle", "bill")}
    built |= {f"admin.envelope.{name}" for name in ("money", "carbon")}
    built |= {f"admin.prices.{name}" for name in ("now", "coming", "over")}
    built |= {f"admin.notices.{name}" for name in ("live", "coming", "over")}
    built |= {f"admin.limits.source.{source}" for source in SOURCES}
    built |= {f"admin.overload.{level}" for level in get_args(Overload)}
    built |= {f"admin.months.{state}" for state in get_args(State)}
    built |= {f"admin.anomaly.{name}" for name in ("none", *get_args(Anomaly))}
    built |= {
        f"admin.place.{name}"
        for name in ("gateway", "ledger", "hourly_rollup", "daily_rollup", "rated_lines", "documents")
    }
    built |= {f"people.{name}" for name in ("name", "email", "role", "state", "since")}
    built |= {f"people.status.{status}" for status in ("active", "suspended", "deleted")}
    acts = ("role", "suspend", "restore", "delete")
    built |= {f"people.{act}{part}" for act in acts for part in ("", ".title", ".what", ".done")}
    built |= {f"documents.kind.{kind}" for kind in get_args(DocumentKind)}
    built |= {f"documents.file.{name}" for name in ("pdf", "json", "csv", "xml", "ubl")}
    built |= {f"documents.{name}" for name in ("number", "kind", "month", "tenant", "due", "valued", "files")}
    built |= {f"documents.line.{name}" for name in ("line", "project", "quantity", "price", "amount")}
    built |= {f"documents.line.{kind}" for kind in get_args(LineKind)}
    built |= {f"documents.{name}" for name in ("corrects", "corrected")}
    built |= {f"documents.now.{billing}" for billing in get_args(Billing)}
    built |= {f"documents.seal.{name}" for name in ("yes", "no", "last")}
    return built


def test_every_word_is_used_and_every_used_word_exists() -> None:
    sources = [*WORDING.parent.glob("*.py"), *(WORDING.parent / "templates").glob("*.html"), *CONSOLE.glob("*.py")]
    sources += [WORDING / f"{name}.py" for name in ("amounts", "dates", "languages")]
    text = "\n".join(path.read_text() for path in sources)
    quoted = set(re.findall(r"[\"']([a-z_]+(?:\.[a-z0-9_]+)*)[\"']", text))
    built = {f"{kind}.{name}" for kind in ("bucket", "when") for name in BUCKETS}
    built |= {f"group.{name}" for name in GROUPS} | {f"filter.{name}" for name in FILTERS}
    built |= {f"notice.{kind}" for kind in ("maintenance", "incident", "information")}
    built |= {f"retirement.{kind}" for kind in ("model", "category")}
    built |= {f"column.{name}" for name in ("requests", "failed", "uncounted")}
    built |= {f"carbon.tier.{tier}" for tier in TIERS} | {f"carbon.series.{name}" for name in SERIES}
    built |= {
        f"carbon.column.{name}" for name in ("energy", "total", "use", "market", "manufacture", "per_1000_tokens")
    }
    built |= {f"carbon.platform.{part}" for part in ("idle", "unallocated")}
    built |= {f"carbon.method.kind.{kind}" for kind in ("location", "market")}
    built |= {f"requests.status.{status}" for status in STATUSES} | {"requests.corrected", "requests.void"}
    built |= {f"requests.filter.{name}" for name in ("user", "api_key", "status")}
    built |= {f"requests.document.{kind}" for kind in ("statement", "invoice", "credit_note")}
    built |= {f"requests.correction.{kind}" for kind in ("correction", "void")}
    built |= {f"requests.fact.{name}" for name in ("source", "event", "ended", "tenant", "requested", "http", "error")}
    built |= {
        f"requests.{name}"
        for name in ("started", "model", "operation", "who", "quantities", "duration", "status", "cost", "carbon")
    }
    built |= {f"sessions.way.{way}" for way in get_args(Way)} | {
        f"demo.{role}" for role in get_args(Role) if role != "gateway"
    }
    built |= {f"role.{name}" for name in get_args(Role) if name != "gateway"}
    built |= {f"limit.window.{window}" for window in WINDOWS} | {f"limit.scope.{scope}" for scope in SCOPES}
    built |= {f"limit.{mode}" for mode in MODES if mode != "hard"} | {f"limit.meter.{meter}" for meter in OWN_NAMES}
    built |= {f"models.meter.{meter}" for meter in PRICE_METERS}
    built |= {f"models.status.{status}" for status in ("available", "coming", "retiring", "retired")}
    built |= {f"quotas.key.status.{status}" for status in ("active", "expired", "revoked", "suspended")}
    built |= {f"quotas.key.{name}" for name in ("name", "prefix", "owner", "expires", "used", "status", "action")}
    built |= {f"quotas.reservation.{name}" for name in ("model", "who", "opened", "expires")}
    built |= {f"quotas.raise.{name}" for name in ("limit", "asked", "study", "state")}
    built |= {f"quotas.raise.state.{state}" for state in ("pending", "approved", "refused", "withdrawn")}
    built |= words_of_sheets()
    built |= {f"method.term.{name}{part}" for name in GLOSSARY for part in ("", ".means")}
    keys = set(DICTIONARIES["fr"])
    # Said of an error by its code, wherever it is raised.
    built |= {key for key in keys if key.startswith("refused.")}
    assert built <= keys
    assert keys <= quoted | built, sorted(keys - quoted - built)


def test_every_meter_of_a_limit_has_a_name() -> None:
    for language in LANGUAGES:
        assert len({meter_name(meter, language) for meter in METERS}) >= len(METERS) - 1  # two are requests


def test_every_quantity_and_operation_has_words_in_both_languages() -> None:
    assert set(wording.QUANTITY_WORDS) == {*QUANTITIES, TOTAL_TOKENS}
    assert set(wording.OPERATION_WORDS) == set(OPERATIONS)
    for words in (*wording.QUANTITY_WORDS.values(), *wording.OPERATION_WORDS.values()):
        assert set(words) == set(LANGUAGES)
        assert all(all(forms) for forms in words.values())


@pytest.mark.parametrize(
    ("nano", "currency", "decimals_max", "french", "english"),
    [
        (0, "EUR", 2, "0,00 €", "€0.00"),
        (4_999_999, "EUR", 2, "0,00 €", "€0.00"),
        (5_000_000, "EUR", 2, "0,01 €", "€0.01"),
        (-5_000_000, "EUR", 2, "\u22120,01 €", "\u2212€0.01"),
        (-4_999_999, "EUR", 2, "0,00 €", "€0.00"),
        (-1_234_560_000_000, "EUR", 2, f"\u22121{NARROW}234,56 €", "\u2212€1,234.56"),
        (1_234_567_891, "EUR", 6, "1,234568 €", "€1.234568"),
        (1_500_000_000, "EUR", 6, "1,50 €", "€1.50"),
        (1, "EUR", 9, "0,000000001 €", "€0.000000001"),
        (-1_000_000_000_000, "CHF", 9, f"\u22121{NARROW}000,00 CHF", "CHF \u22121,000.00"),
    ],
)
def test_money_has_one_form(nano: int, currency: str, decimals_max: int, french: str, english: str) -> None:
    assert wording.money(nano, currency, "fr", decimals_max) == french.replace(" ", FIXED)
    assert wording.money(nano, currency, "en", decimals_max) == english.replace(" ", FIXED)


@pytest.mark.parametrize(
    ("value", "french", "english"),
    [
        (0, "0", "0"),
        (999, "999", "999"),
        (12_345_678, f"12{NARROW}345{NARROW}678", "12,345,678"),
        (-1_200, f"−1{NARROW}200", "−1,200"),
        (2**53 - 1, f"9{NARROW}007{NARROW}199{NARROW}254{NARROW}740{NARROW}991", "9,007,199,254,740,991"),
    ],
)
def test_numbers(value: int, french: str, english: str) -> None:
    assert wording.number(value, "fr") == french
    assert wording.number(value, "en") == english


@pytest.mark.parametrize(
    ("value", "french", "english"),
    [(0, "0 requête", "0 requests"), (1, "1 requête", "1 request"), (2, "2 requêtes", "2 requests")],
)
def test_units_agree_with_their_number(value: int, french: str, english: str) -> None:
    assert wording.amount(value, "requests", "fr") == french.replace(" ", FIXED)
    assert wording.amount(value, "requests", "en") == english.replace(" ", FIXED)


@pytest.mark.parametrize(
    ("value_ms", "said"),
    [
        (0, "0 s"),
        (250, "250 ms"),
        (5_900, "5 s"),
        (725_000, "12 min 5 s"),
        (11_520_000, "3 h 12 min"),
        (7_200_000, "2 h"),
        (3_600_000 + 30_000, "1 h"),
        (-60_000, "−1 min"),
    ],
)
def test_durations(value_ms: int, said: str) -> None:
    assert wording.duration(value_ms, "fr") == said.replace(" ", FIXED)


@pytest.mark.parametrize(
    ("value", "french", "english"),
    [
        (500, "500", "500"),
        (1_500, "1,5 k", "1.5 k"),
        (20_000_000, "20 M", "20 M"),
        (2_000_000_000, "2 Md", "2 bn"),
        (1_234, f"1{NARROW}234", "1,234"),
    ],
)
def test_axis_values_are_short_only_where_exact(value: int, french: str, english: str) -> None:
    assert wording.compact(value, "fr") == french.replace(" ", FIXED)
    assert wording.compact(value, "en") == english.replace(" ", FIXED)


def test_shares_round_to_the_nearest_and_never_to_nothing() -> None:
    assert wording.share(1, 3, "fr") == f"33{NARROW}%"
    assert wording.share(2, 3, "en") == "67%"
    assert wording.share(1, 10_000, "en") == "< 1%"
    assert wording.share(0, 10, "en") == "0%"


def test_periods_say_once_what_their_ends_share() -> None:
    first = date(2026, 9, 1)
    assert wording.period(first, date(2026, 9, 30), "fr") == "Du 1er au 30 septembre 2026 inclus"
    assert wording.period(first, date(2026, 10, 5), "fr") == "Du 1er septembre au 5 octobre 2026 inclus"
    assert wording.period(first, date(2027, 1, 5), "en") == "1 September 2026 to 5 January 2027, both included"
    assert wording.period(first, first, "fr") == "Le 1er septembre 2026"


def test_the_hour_that_comes_twice_says_which_it_is() -> None:
    labels = [
        wording.bucket_label(datetime(2026, 10, 25, hour, tzinfo=UTC), "hour", PARIS, "fr") for hour in range(-1 + 1, 3)
    ]
    assert labels == [
        "25 octobre 2026, 2 h (UTC+2)".replace(" h", f"{FIXED}h"),
        "25 octobre 2026, 2 h (UTC+1)".replace(" h", f"{FIXED}h"),
        "25 octobre 2026, 3 h".replace(" h", f"{FIXED}h"),
    ]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "fr"),
        ("en", "en"),
        ("en-GB,en;q=0.9,fr;q=0.8", "en"),
        ("de,fr;q=0.5,en;q=0.4", "fr"),
        ("en;q=0", "fr"),
        ("en;q=broken, *", "fr"),
    ],
)
def test_the_browser_says_which_language_it_prefers(header: str, language: str) -> None:
    assert wording.preferred_language(header, "fr") == language


def test_sentences_take_their_values() -> None:
    assert say("fr", "others", count=12) == "Autres (12)"
    with pytest.raises(KeyError):
        say("fr", "no such key")


@pytest.mark.parametrize(
    ("value_ng", "french", "english"),
    [
        (0, "0 g CO2e", "0 g CO2e"),
        (7, "7 ng CO2e", "7 ng CO2e"),
        (1_500, "1,50 µg CO2e", "1.50 µg CO2e"),
        (12_345 * 10**9, "12,3 kg CO2e", "12.3 kg CO2e"),
        (1_005 * 10**9, "1,01 kg CO2e", "1.01 kg CO2e"),
        (999_600 * 10**6, f"1{NARROW}000 g CO2e", "1,000 g CO2e"),
        (-2 * 10**15, "−2,00 t CO2e", "−2.00 t CO2e"),
        (12_345 * 10**15, f"12{NARROW}345 t CO2e", "12,345 t CO2e"),
    ],
)
def test_masses_have_three_digits_and_the_unit_that_fits(value_ng: int, french: str, english: str) -> None:
    assert wording.mass(value_ng, "fr") == french.replace(" ", FIXED)
    assert wording.mass(value_ng, "en") == english.replace(" ", FIXED)


@pytest.mark.parametrize(
    ("value_uj", "said"),
    [
        (0, "0 Wh"),
        (36, "0.01 µWh"),
        (3_600, "1.00 µWh"),
        (3_600_000_000, "1.00 Wh"),
        (4_500_000_000_000, "1.25 kWh"),
        (9 * 10**15, "2.50 MWh"),
    ],
)
def test_energies_have_three_digits_and_the_unit_that_fits(value_uj: int, said: str) -> None:
    assert wording.energy(value_uj, "en") == said.replace(" ", FIXED)


@pytest.mark.parametrize(
    ("value_ng", "said"),
    [(0, "0"), (2 * 10**11, "200 g"), (15 * 10**11, "1,5 kg"), (10**12, "1 kg"), (20_000, "20 µg")],
)
def test_values_of_an_axis_are_short_and_exact(value_ng: int, said: str) -> None:
    assert wording.axis_mass(value_ng, "fr") == said.replace(" ", FIXED)
