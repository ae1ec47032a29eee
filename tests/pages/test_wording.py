"""Both languages say everything, and numbers, durations and dates are said as each language does."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from metering.rules.periods import PARIS
from metering.rules.quantities import OPERATIONS, QUANTITIES
from reports import wording
from reports.figures import TOTAL_TOKENS
from reports.selection import BUCKETS, FILTERS, GROUPS
from reports.wording import DICTIONARIES, LANGUAGES, say

REPORTS = Path(wording.__file__).parent
NARROW, FIXED = "\u202f", "\u00a0"


def fields(sentence: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", sentence))


def test_both_dictionaries_hold_the_same_keys_and_the_same_values_to_fill_in() -> None:
    french, english = DICTIONARIES["fr"], DICTIONARIES["en"]
    assert set(french) == set(english)
    assert {key: fields(french[key]) for key in french} == {key: fields(english[key]) for key in english}


def test_every_word_is_used_and_every_used_word_exists() -> None:
    sources = [*REPORTS.glob("*.py"), *(REPORTS / "templates").glob("*.html")]
    text = (
        "\n".join(path.read_text() for path in sources if path.name != "wording.py")
        + ((REPORTS / "wording.py").read_text().partition("DICTIONARIES:")[2])
    )
    quoted = set(re.findall(r"[\"']([a-z_]+(?:\.[a-z_]+)?)[\"']", text))
    built = {f"{kind}.{name}" for kind in ("bucket", "when") for name in BUCKETS}
    built |= {f"group.{name}" for name in GROUPS} | {f"filter.{name}" for name in FILTERS}
    built |= {f"notice.{kind}" for kind in ("maintenance", "incident", "information")}
    built |= {f"retirement.{kind}" for kind in ("model", "category")}
    built |= {f"column.{name}" for name in ("requests", "failed", "uncounted")}
    keys = set(DICTIONARIES["fr"])
    assert built <= keys
    assert keys <= quoted | built, sorted(keys - quoted - built)


def test_every_quantity_and_operation_has_words_in_both_languages() -> None:
    assert set(wording.QUANTITY_WORDS) == {*QUANTITIES, TOTAL_TOKENS}
    assert set(wording.OPERATION_WORDS) == set(OPERATIONS)
    for words in (*wording.QUANTITY_WORDS.values(), *wording.OPERATION_WORDS.values()):
        assert set(words) == set(LANGUAGES)
        assert all(all(forms) for forms in words.values())


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
