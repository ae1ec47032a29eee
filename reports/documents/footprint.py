"""Carbon on a document: what the month emitted with its bounds, how well that is known, and what isn't. Pure."""

from typing import Any

from metering.rules.billing.documents import CarbonFigures
from reports import wording
from reports.carbon_words import measured
from reports.cells import short
from reports.documents.words import say
from reports.shown import Measured
from reports.wording import Language


def carbon_shown(carbon: CarbonFigures | None, language: Language) -> dict[str, Any]:
    """Texts of the section on carbon. What isn't measured says so, and is never 0."""
    shown: dict[str, Any] = {
        "title": say(language, "carbon"),
        "facts": [],
        "tiers": [],
        "tiers-title": say(language, "carbon.tiers"),
        "notes": [],
    }
    if carbon is None:
        return shown | {"notes": [say(language, "carbon.none")]}
    total = measured(carbon.total_ng, carbon.total_lower_ng, carbon.total_upper_ng, wording.mass, language)
    energy = None if carbon.energy_uj is None else wording.energy(carbon.energy_uj, language)
    known = carbon.requests - carbon.requests_unknown
    shown["facts"] = [
        _fact("carbon.total", _value(total, language), language, say(language, "carbon.total_note")),
        _fact("carbon.energy", energy or say(language, "carbon.unmeasured"), language),
        _fact("carbon.requests", _counted(known, carbon.requests, language), language),
    ]
    if carbon.requests_unknown:
        count = wording.number(carbon.requests_unknown, language)
        note = say(language, "carbon.requests_unknown_note")
        shown["facts"].append(_fact("carbon.requests_unknown", count, language, note))
    if carbon.methods:
        shown["facts"].append(_fact("carbon.method", short(", ".join(carbon.methods)), language))
    shown["tiers"] = [
        [wording.say(language, f"carbon.tier.{tier}"), wording.share(share, 10**6, language)]
        for tier, share in carbon.tiers_ppm
    ]
    if not carbon.is_complete:
        shown["notes"] = [say(language, "carbon.incomplete")]
    return shown


def _fact(key: str, value: str, language: Language, note: str = "") -> dict[str, str]:
    return {"label": say(language, key), "value": value, "note": note}


def _value(value: Measured, language: Language) -> str:
    if value.value is None:
        return say(language, "carbon.unmeasured")
    return f"{value.value} ({value.between})" if value.between else value.value


def _counted(known: int, every: int, language: Language) -> str:
    numbers = {"known": wording.number(known, language), "all": wording.number(every, language)}
    return say(language, "carbon.requests_of", **numbers)
