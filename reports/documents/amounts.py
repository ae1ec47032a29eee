"""How amounts, prices and quantities of documents are written: exactly, for people and for machines. Pure.

Nothing is rounded here. A quantity is shown in a unit in which its base unit is a finite decimal, so that whoever
multiplies what is shown by the price that is shown gets the line's amount before its rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from metering.rules.rating.meters import BASE_UNITS, GB_MONTH_BYTE_HOURS, PriceMeter
from metering.rules.rating.prices import NANO
from reports import wording
from reports.wording import FIXED, Language

PRICE_DECIMALS_MAX = 4
"""Decimals that receivers of e-invoices take in a unit price; the base quantity grows instead."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A base unit as it is shown: `size` of them are one of `names` (singular and plural by language).

    code: of UN/ECE recommendation 20, for one base unit; C62 is "one" of what the line names.
    """

    size: int
    names: Mapping[Language, tuple[str, str]]
    code: str = "C62"


def _named(french: tuple[str, str], english: tuple[str, str]) -> Mapping[Language, tuple[str, str]]:
    return {"fr": french, "en": english}


UNITS: Mapping[str, Unit] = MappingProxyType(
    {
        "token": Unit(1, _named(("jeton", "jetons"), ("token", "tokens"))),
        "ms": Unit(1_000, _named(("s", "s"), ("s", "s")), "C26"),
        "request": Unit(1, _named(("requête", "requêtes"), ("request", "requests"))),
        "input": Unit(1, _named(("texte", "textes"), ("text", "texts"))),
        "page": Unit(1, _named(("page", "pages"), ("page", "pages")), "ZP"),
        "image": Unit(1, _named(("image", "images"), ("image", "images"))),
        "document": Unit(1, _named(("document", "documents"), ("document", "documents"))),
        "search": Unit(1, _named(("recherche", "recherches"), ("search", "searches"))),
        "byte-hour": Unit(10**9, _named(("Go·h", "Go·h"), ("GB·h", "GB·h"))),
        "µgCO2e": Unit(10**6, _named(("g CO2e", "g CO2e"), ("g CO2e", "g CO2e")), "MC"),
    }
)
"""Units of base units."""

PRICED_UNITS: Mapping[tuple[str, int], Mapping[Language, str]] = MappingProxyType(
    {
        ("ms", 1_000): {"fr": "s", "en": "s"},
        ("ms", 60_000): {"fr": "min", "en": "min"},
        ("ms", 3_600_000): {"fr": "h", "en": "h"},
        ("byte-hour", GB_MONTH_BYTE_HOURS): {"fr": "Go·mois (730 h)", "en": "GB·month (730 h)"},
        ("µgCO2e", 10**9): {"fr": "kg CO2e", "en": "kg CO2e"},
        ("µgCO2e", 10**12): {"fr": "t CO2e", "en": "t CO2e"},
    }
)
"""Multiples of base units that prices are for and that have a name."""

METER_WORDS: Mapping[PriceMeter, Mapping[Language, str]] = MappingProxyType(
    {
        "input_tokens": {"fr": "jetons en entrée", "en": "input tokens"},
        "cached_input_tokens": {"fr": "jetons en entrée repris du cache", "en": "cached input tokens"},
        "output_tokens": {"fr": "jetons en sortie", "en": "output tokens"},
        "total_tokens": {"fr": "jetons, entrée et sortie", "en": "tokens, input and output"},
        "audio_ms": {"fr": "durée d’audio", "en": "duration of audio"},
        "embedding_requests": {"fr": "requêtes de vectorisation", "en": "embedding requests"},
        "embedding_inputs": {"fr": "textes vectorisés", "en": "embedded texts"},
        "requests": {"fr": "requêtes", "en": "requests"},
        "pages": {"fr": "pages lues", "en": "pages read"},
        "images": {"fr": "images", "en": "images"},
        "documents": {"fr": "documents", "en": "documents"},
        "searches": {"fr": "recherches documentaires", "en": "searches in documents"},
        "web_searches": {"fr": "recherches sur le web", "en": "web searches"},
        "storage_byte_hours": {"fr": "stockage", "en": "storage"},
        "carbon_ugco2e": {"fr": "émissions", "en": "emissions"},
    }
)
"""What each meter measures."""


NANO_PER_CENT = NANO // 100


def money(cents: int) -> Decimal:
    """An amount in the currency, with its two decimals."""
    return Decimal(cents).scaleb(-2)


def amount(cents: int, currency: str, language: Language) -> str:
    """An amount with its currency: 1 234,56 € or €1,234.56."""
    return wording.money(cents * NANO_PER_CENT, currency, language)


def unit_price(nano: int, currency: str, language: Language) -> str:
    """A unit price with its currency: all the decimals that it has, two at least."""
    return wording.money(nano, currency, language)


def shown_quantity(meter: PriceMeter, quantity: int) -> Decimal:
    """A quantity of base units in the unit that it is shown in, exactly."""
    return _decimal(quantity, UNITS[BASE_UNITS[meter]].size)


def unit_word(meter: PriceMeter, quantity: int, language: Language) -> str:
    """The name of the unit that so many base units are shown in."""
    unit = UNITS[BASE_UNITS[meter]]
    singular, plural = unit.names[language]
    shown = abs(_decimal(quantity, unit.size))
    return singular if (shown < 2 if language == "fr" else shown == 1) else plural


def quantity_text(meter: PriceMeter, quantity: int, language: Language) -> str:
    """A quantity and its unit: 12 345 jetons, 12,345 s."""
    return f"{wording.digits(shown_quantity(meter, quantity), language)}{FIXED}{unit_word(meter, quantity, language)}"


def price_base(meter: PriceMeter, per: int, language: Language) -> str:
    """What a price is for: 1 000 000 jetons, h, Go·mois (730 h)."""
    base = BASE_UNITS[meter]
    if (named := PRICED_UNITS.get((base, per))) is not None:
        return named[language]
    if per == UNITS[base].size:
        return UNITS[base].names[language][0]
    return quantity_text(meter, per, language)


def unit_code(meter: PriceMeter) -> str:
    """UN/ECE's code of a meter's base unit."""
    return UNITS[BASE_UNITS[meter]].code


def plain_price(nano: int, per: int) -> tuple[Decimal, int]:
    """A price that isn't negative and its base, with few decimals: the same quotient to the last digit."""
    assert nano >= 0
    assert per > 0
    while nano % 10 ** (9 - PRICE_DECIMALS_MAX):
        nano, per = nano * 10, per * 10
    return _decimal(nano, NANO), per


def _decimal(value: int, size: int) -> Decimal:
    """An integer over a power of ten, exactly, whatever the context's precision is."""
    exponent = len(str(size)) - 1
    assert size == 10**exponent
    return Decimal((int(value < 0), tuple(int(digit) for digit in str(abs(value))), -exponent))
