"""How limits and their amounts are said. Pure."""

from reports import wording
from reports.choosing import group_label
from reports.journal_page import COST_DECIMALS_MAX
from reports.standing import LimitRule
from reports.wording import Language, say

NG_PER_UG = 1_000
OWN_NAMES = frozenset({"cost_neur", "carbon_ugco2e", "concurrent_requests", "embedding_requests"})
"""Meters that aren't quantities of events, and have words of their own."""


def said_amount(value: int, meter: str, language: Language) -> str:
    """An amount of a meter with its unit: tokens, minutes, euros, grams of CO2e."""
    if meter == "cost_neur":
        return wording.money(value, "EUR", language, COST_DECIMALS_MAX)
    if meter == "carbon_ugco2e":
        return wording.mass(value * NG_PER_UG, language)
    if meter in {"concurrent_requests", "embedding_requests"}:
        return wording.amount(value, "requests", language)
    return wording.amount_in_sentence(value, meter, language)


def meter_name(meter: str, language: Language) -> str:
    """What a limit bounds, as a heading."""
    return say(language, f"limit.meter.{meter}") if meter in OWN_NAMES else wording.quantity_name(meter, language)


def said_limit(rule: LimitRule, language: Language) -> str:
    """What a limit allows: "60 requêtes par minute"."""
    window = say(language, f"limit.window.{rule.window}")
    if not rule.value:
        key = "limit.unlimited" if rule.value is None else "limit.forbidden"
        return say(language, key, meter=meter_name(rule.meter, language), window=window)
    return say(language, "limit.said", amount=said_amount(rule.value, rule.meter, language), window=window)


def said_place(rule: LimitRule, language: Language) -> str:
    """Whose a limit is, and of what: "agent, modèle albert-large"."""
    kind, _, name = rule.selector.partition(":")
    if rule.selector == "*":
        what = say(language, "limit.everything")
    elif kind == "category":
        what = f"{say(language, 'models.category').lower()} {name}"
    else:
        what = f"{say(language, f'group.{kind}')} {group_label(name, kind, language)}"
    scope = say(language, f"limit.scope.{rule.scope}")
    whose = f"{scope} {rule.subject}" if rule.subject else scope
    mode = f" ({say(language, f'limit.{rule.mode}')})" if rule.mode in {"soft", "shadow"} else ""
    return f"{whose}, {what}{mode}"
