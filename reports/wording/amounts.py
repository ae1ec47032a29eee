"""Numbers, quantities, durations, masses and energies in a reader's language.

Pure. Unknown values (None) are the caller's to name: nothing here turns them into a number.
"""

from collections.abc import Mapping
from decimal import Decimal

from reports.wording.languages import FIXED, NARROW, Language
from reports.wording.sentences import say

QUANTITY_WORDS: Mapping[str, Mapping[Language, tuple[str, str]]] = {
    "requests": {"fr": ("requête", "requêtes"), "en": ("request", "requests")},
    "total_tokens": {"fr": ("jeton", "jetons"), "en": ("token", "tokens")},
    "input_tokens": {"fr": ("jeton en entrée", "jetons en entrée"), "en": ("input token", "input tokens")},
    "cached_input_tokens": {
        "fr": ("jeton en entrée repris du cache", "jetons en entrée repris du cache"),
        "en": ("cached input token", "cached input tokens"),
    },
    "output_tokens": {"fr": ("jeton en sortie", "jetons en sortie"), "en": ("output token", "output tokens")},
    "reasoning_tokens": {
        "fr": ("jeton de raisonnement", "jetons de raisonnement"),
        "en": ("reasoning token", "reasoning tokens"),
    },
    "audio_ms": {"fr": ("durée audio", "durée audio"), "en": ("audio duration", "audio duration")},
    "embedding_inputs": {
        "fr": ("texte vectorisé", "textes vectorisés"),
        "en": ("embedded text", "embedded texts"),
    },
    "images": {"fr": ("image", "images"), "en": ("image", "images")},
    "pages": {"fr": ("page", "pages"), "en": ("page", "pages")},
    "documents": {"fr": ("document", "documents"), "en": ("document", "documents")},
    "bytes_in": {"fr": ("octet reçu", "octets reçus"), "en": ("byte received", "bytes received")},
    "bytes_out": {"fr": ("octet envoyé", "octets envoyés"), "en": ("byte sent", "bytes sent")},
    "searches": {"fr": ("recherche", "recherches"), "en": ("search", "searches")},
    "web_searches": {"fr": ("recherche sur le web", "recherches sur le web"), "en": ("web search", "web searches")},
    "storage_byte_hours": {"fr": ("octet-heure", "octets-heures"), "en": ("byte-hour", "byte-hours")},
}
"""Singular and plural of what each quantity counts; a duration has one form and carries its units itself."""

DURATIONS = frozenset({"audio_ms"})
"""Quantities in milliseconds, said in hours and minutes."""

MASSES = frozenset({"carbon_ng"})
"""Quantities in nanograms of CO2e, said in the unit that fits."""

Scale = tuple[tuple[int, str], ...]
"""Units by falling size, each in base units."""
MASS: Scale = ((10**15, "t"), (10**12, "kg"), (10**9, "g"), (10**6, "mg"), (10**3, "µg"), (1, "ng"))
ENERGY: Scale = tuple(
    (3_600 * size, name) for size, name in ((10**12, "MWh"), (10**9, "kWh"), (10**6, "Wh"), (10**3, "mWh"), (1, "µWh"))
)
NANO_DECIMALS = 9
SIGNIFICANT = 3
"""Digits of a measured value that are said."""

MAGNITUDES: Mapping[Language, tuple[tuple[int, str], ...]] = {
    "fr": ((10**9, "Md"), (10**6, "M"), (10**3, "k")),
    "en": ((10**9, "bn"), (10**6, "M"), (10**3, "k")),
}

OPERATION_WORDS: Mapping[str, Mapping[Language, str]] = {
    "chat": {"fr": "conversation", "en": "chat"},
    "completion": {"fr": "complétion", "en": "completion"},
    "embedding": {"fr": "vectorisation", "en": "embedding"},
    "rerank": {"fr": "reclassement", "en": "rerank"},
    "transcription": {"fr": "transcription", "en": "transcription"},
    "ocr": {"fr": "reconnaissance de texte", "en": "text recognition"},
    "parse": {"fr": "analyse de documents", "en": "document parsing"},
    "search": {"fr": "recherche", "en": "search"},
    "web_search": {"fr": "recherche sur le web", "en": "web search"},
    "file_ingest": {"fr": "versement de fichiers", "en": "file ingest"},
    "storage": {"fr": "stockage", "en": "storage"},
    "image": {"fr": "image", "en": "image"},
    "other": {"fr": "autre", "en": "other"},
}


CURRENCY_SIGNS: Mapping[str, str] = {"EUR": "€"}


def digits(value: Decimal, language: Language, decimals: int = 0) -> str:
    """A number as people write it, whole, with at least so many decimals."""
    whole, _, rest = f"{abs(value):f}".partition(".")
    rest = rest.rstrip("0").ljust(decimals, "0")
    mark = "," if language == "fr" else "."
    sign = "\u2212" if value < 0 else ""
    return sign + number(int(whole), language) + (mark + rest if rest else "")


def money(nano: int, currency: str, language: Language, decimals_max: int = NANO_DECIMALS) -> str:
    """An amount of 10^-9 of a currency: 1 234,56 € or €1,234.56.

    It has two decimals at least, and is rounded half up, away from zero, to `decimals_max`.
    """
    step = 10 ** (NANO_DECIMALS - decimals_max)
    rounded = (2 * abs(nano) + step) // (2 * step) * (step if nano > 0 else -step)
    said = digits(Decimal(rounded).scaleb(-NANO_DECIMALS), language, 2)
    symbol = CURRENCY_SIGNS.get(currency)
    if language == "fr":
        return f"{said}{FIXED}{symbol or currency}"
    if symbol is None:
        return f"{currency}{FIXED}{said}"
    return f"\u2212{symbol}{said[1:]}" if rounded < 0 else f"{symbol}{said}"


def number(value: int, language: Language) -> str:
    """An integer with its thousands grouped: 12 345 678 (narrow no-break spaces) or 12,345,678."""
    grouped = f"{value:,}"
    return grouped.replace(",", NARROW).replace("-", "\u2212") if language == "fr" else grouped.replace("-", "\u2212")


def quantity_name(quantity: str, language: Language) -> str:
    """Name of a quantity as a heading: its plural, capitalised."""
    plural = QUANTITY_WORDS[quantity][language][1]
    return plural[0].upper() + plural[1:]


def amount(value: int, quantity: str, language: Language) -> str:
    """A value with its unit: "12 034 requêtes", "3 h 12 min"."""
    return f"{bare_amount(value, quantity, language)}{unit_after(value, quantity, language)}"


def amount_in_sentence(value: int, quantity: str, language: Language) -> str:
    """As `amount`, saying of what even for a duration: "3 h 12 min d’audio"."""
    text = amount(value, quantity, language)
    return say(language, "of_audio", amount=text) if quantity == "audio_ms" else text


def bare_amount(value: int, quantity: str, language: Language) -> str:
    """A value where the unit stands in the heading; durations keep theirs."""
    return duration(value, language) if quantity in DURATIONS else number(value, language)


def unit_after(value: int, quantity: str, language: Language) -> str:
    """No-break space and unit that follow a bare value; empty for durations."""
    return "" if quantity in DURATIONS else FIXED + unit(value, quantity, language)


def unit(value: int, quantity: str, language: Language) -> str:
    """Singular or plural of a quantity's unit: French counts 0 and 1 as singular, English 1 only."""
    singular, plural = QUANTITY_WORDS[quantity][language]
    is_singular = abs(value) < 2 if language == "fr" else abs(value) == 1
    return singular if is_singular else plural


def duration(value_ms: int, language: Language) -> str:
    """Milliseconds in the two largest units that matter, cut downwards: "3 h 12 min", "12 min 5 s", "5 s", "250 ms"."""
    sign, rest_ms = ("\u2212" if value_ms < 0 else ""), abs(value_ms)
    if 0 < rest_ms < 1000:
        return f"{sign}{rest_ms}{FIXED}ms"
    minutes, seconds = divmod(rest_ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        parts = [(hours, "h"), (minutes, "min")]
    elif minutes:
        parts = [(minutes, "min"), (seconds, "s")]
    else:
        parts = [(seconds, "s")]
    shown = [part for part in parts if part[0]] or parts[:1]
    return sign + FIXED.join(f"{number(count, language)}{FIXED}{name}" for count, name in shown)


def scale_of(value: int, scale: Scale) -> tuple[int, str]:
    """The largest unit of a scale that a value has one of; the smallest, if it has none of any."""
    return next((unit for unit in scale if abs(value) >= unit[0]), scale[-1])


def scaled(value: int, size: int, language: Language) -> str:
    """A value in a unit of some size, rounded half up to SIGNIFICANT digits, or to a unit where it has more."""
    decimals = max(SIGNIFICANT - len(str(abs(value) // size)), 0) if size > 1 else 0
    rounded = (2 * abs(value) * 10**decimals + size) // (2 * size)
    whole, rest = divmod(rounded, 10**decimals)
    sign = "\u2212" if value < 0 else ""
    mark = "," if language == "fr" else "."
    return sign + number(whole, language) + (f"{mark}{rest:0{decimals}d}" if decimals else "")


def mass(value_ng: int, language: Language) -> str:
    """Nanograms of CO2e in the unit that fits: "12,3 kg CO2e"."""
    return f"{bare_mass(value_ng, language)}{FIXED}CO2e"


def bare_mass(value_ng: int, language: Language) -> str:
    """A mass where a heading says that it is of CO2e: "12,3 kg"."""
    return _measured(value_ng, MASS, language) if value_ng else f"0{FIXED}g"


def energy(value_uj: int, language: Language) -> str:
    """Microjoules in the unit that fits: "12.3 kWh"."""
    return _measured(value_uj, ENERGY, language) if value_uj else f"0{FIXED}Wh"


def between(lower: str, upper: str, language: Language) -> str:
    """Two measured values as a range; a unit of both is said once: "de 1,2 à 3,4 kg", "from 900 g to 1.1 kg"."""
    amount, _, unit_name = lower.partition(FIXED)
    is_shared = unit_name == upper.partition(FIXED)[2]
    return say(language, "between", lower=amount if is_shared else lower, upper=upper)


def axis_mass(value_ng: int, language: Language) -> str:
    """A round axis value in nanograms, short and exact: "1,5 kg"."""
    if value_ng == 0:
        return "0"
    text, unit_name = _measured(value_ng, MASS, language).split(FIXED)
    mark = "," if language == "fr" else "."
    return f"{text.rstrip('0').rstrip(mark) if mark in text else text}{FIXED}{unit_name}"


def _measured(value: int, scale: Scale, language: Language) -> str:
    size, unit_name = scale_of(value, scale)
    return f"{scaled(value, size, language)}{FIXED}{unit_name}"


def compact(value: int, language: Language) -> str:
    """A round axis value, short and exact: "1,5 k", "20 M". Falls back to the full number when it isn't round."""
    for magnitude, suffix in MAGNITUDES[language]:
        if value >= magnitude and value * 100 % magnitude == 0:
            whole, hundredths = divmod(value * 100 // magnitude, 100)
            digits = f"{hundredths:02d}".rstrip("0")
            mark = "," if language == "fr" else "."
            short = number(whole, language) + (mark + digits if digits else "")
            return f"{short}{FIXED}{suffix}"
    return number(value, language)


def share(part: int, whole: int, language: Language) -> str:
    """Part of a positive whole in percent: "62 %"; a part that would round to nothing is "< 1 %"."""
    assert whole > 0
    percent = (200 * part + whole) // (2 * whole)
    text = "< 1" if percent == 0 and part > 0 else str(percent)
    return f"{text}{NARROW}%" if language == "fr" else f"{text}%"
