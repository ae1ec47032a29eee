"""What mails say: one text template for each subject and language, and how values are written in them.

A template's first line is the mail's subject line; the rest, after an empty line, is its text.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from metering.rules.limits import Meter, Scope, Window
from metering.rules.periods import BOOKS_ZONE, PARIS

Language = Literal["fr", "en"]

MAIL_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "access_received": ("request",),
    "access_delayed": ("request", "reason"),
    "access_approved": ("request",),
    "access_refused": ("request", "reason"),
    "access_to_validate": ("request", "kind"),
    "invitation": ("request", "tenant_name"),
    "account_suspended": ("reason",),
    "account_deleted": (),
    "key_expiring": ("name", "prefix", "expires_at"),
    "key_revoked": ("name", "prefix"),
    "raise_received": ("request", "tenant"),
    "limit_threshold": ("threshold", "rule", "value", "used", "mode", "subject", "ends_at"),
    "envelope_running_out": (
        "title",
        "meter",
        "envelope",
        "consumed",
        "runs_out_on",
        "earliest",
        "latest",
        "ends_on",
        "overage",
    ),
    "raise_decided": ("state", "rule", "value", "ends_at", "reason"),
    "terms_published": ("document", "version", "effective_at", "enforced_at"),
    "model_retiring": ("kind", "name", "successor", "retires_at", "days"),
    "reconciliation_drift": ("period", "drifts", "places"),
    "drafts_ready": ("month", "obstacles"),
    "documents_final": ("month", "documents"),
    "export_ready": ("file", "rows", "expires_at", "export"),
    "notice_published": ("title_fr", "title_en", "text_fr", "text_en", "starts_at", "ends_at"),
}
"""Subject of a mail to the fields of its payload. `reason`, `ends_at`, `subject`, `successor`, `value`, `latest` may be
null."""

_PARAGRAPHS: Final = frozenset({"reason", "text_fr", "text_en"})
"""Values that may have several lines; all others are put on one, so that none passes for a text of ours."""

CODE_SUBJECTS: Final = frozenset({"access_approved", "invitation"})
"""Mails with an activation code: `code`, `link` and `code_expires_at` are computed when they are sent."""

_MONTHS: Final[Mapping[Language, str]] = {
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "en": "January February March April May June July August September October November December",
}
_METERS: Final[Mapping[Language, Mapping[Meter, str]]] = {
    "fr": {
        "requests": "requêtes",
        "input_tokens": "jetons en entrée",
        "output_tokens": "jetons en sortie",
        "total_tokens": "jetons",
        "audio_ms": "millisecondes d’audio",
        "embedding_requests": "requêtes de vectorisation",
        "embedding_inputs": "textes vectorisés",
        "pages": "pages",
        "searches": "recherches",
        "cost_neur": "euros",
        "carbon_ugco2e": "gCO2e",
        "concurrent_requests": "requêtes simultanées",
    },
    "en": {
        "requests": "requests",
        "input_tokens": "input tokens",
        "output_tokens": "output tokens",
        "total_tokens": "tokens",
        "audio_ms": "milliseconds of audio",
        "embedding_requests": "embedding requests",
        "embedding_inputs": "embedded texts",
        "pages": "pages",
        "searches": "searches",
        "cost_neur": "euros",
        "carbon_ugco2e": "gCO2e",
        "concurrent_requests": "concurrent requests",
    },
}
_DECIMALS: Final[Mapping[str, int]] = {"cost_neur": 9, "carbon_ugco2e": 6}
"""Decimal places between a meter's base unit and the one people read."""
_WINDOWS: Final[Mapping[Language, Mapping[Window, str]]] = {
    "fr": {
        "minute": "par minute",
        "day": "par jour",
        "month": "par mois",
        "term": "sur la durée de la convention",
        "credit": "en tout",
        "now": "",
    },
    "en": {
        "minute": "a minute",
        "day": "a day",
        "month": "a month",
        "term": "over the term of the convention",
        "credit": "in all",
        "now": "",
    },
}
_SCOPES: Final[Mapping[Language, Mapping[Scope, str]]] = {
    "fr": {"tenant": "pour l’administration", "project": "par projet", "user": "par agent", "key": "par clé"},
    "en": {"tenant": "for the administration", "project": "per project", "user": "per user", "key": "per key"},
}
_KINDS: Final[Mapping[Language, Mapping[str, tuple[str, str]]]] = {
    "fr": {
        "model": ("chaque modèle", "modèle"),
        "category": ("chaque catégorie", "catégorie"),
        "operation": ("chaque opération", "opération"),
    },
    "en": {
        "model": ("each model", "model"),
        "category": ("each category", "category"),
        "operation": ("each operation", "operation"),
    },
}
"""Kind of a selector: how each of them, and how one of them, is called."""


def render(subject: str, language: Language, values: Mapping[str, Any]) -> tuple[str, str]:
    """Subject line and text of a mail."""
    values = {
        name: " ".join(value.split()) if isinstance(value, str) and name not in _PARAGRAPHS else value
        for name, value in values.items()
    }
    head, _, text = _template(subject, language).render(values).partition("\n")
    ending = _template("ending", language).render(values)
    # What a template leaves out leaves empty lines behind.
    return head, re.sub(r"\n{3,}", "\n\n", f"{text.strip()}\n\n{ending.strip()}\n")


@cache
def _template(name: str, language: Language) -> Template:
    return _environment(language).get_template(f"{name}.{language}.txt")


@cache
def _environment(language: Language) -> Environment:
    environment = Environment(  # noqa: S701 - plain text: there is nothing to escape
        loader=PackageLoader("metering.outbox"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["instant"] = lambda value: instant(value, language)
    environment.filters["day"] = lambda value: day(value, language)
    environment.filters["amount"] = lambda value, meter: amount(value, meter, language)
    environment.filters["limit"] = lambda rule, value: limit(rule, value, language)
    return environment


def instant(value: str | datetime, language: Language) -> str:
    """An instant in the time of the books: `5 octobre 2026 à 10:00 (Europe/Paris, UTC+02:00)`."""
    at = (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(PARIS)
    preposition = "à" if language == "fr" else "at"
    zone = f"({BOOKS_ZONE}, UTC{at.isoformat()[-6:]})"
    return f"{day(at.date().isoformat(), language)} {preposition} {at:%H:%M} {zone}"


def day(value: str, language: Language) -> str:
    """A day: `5 octobre 2026`."""
    on = date.fromisoformat(value)
    return f"{on.day} {_MONTHS[language].split()[on.month - 1]} {on.year}"


def limit(rule: Mapping[str, Any], value: int | None, language: Language) -> str:
    """A limit in words: `20 000 jetons par minute, par agent (modèle : albert-large)`. value: in base units."""
    words = [amount(value, rule["meter"], language), _WINDOWS[language][rule["window"]]]
    return f"{' '.join(filter(None, words))}, {_SCOPES[language][rule['scope']]}{_selected(rule['selector'], language)}"


def amount(value: int | None, meter: Meter, language: Language) -> str:
    """An amount in words: `20 000 jetons`. value: in base units."""
    return f"{_number(value, meter, language)} {_METERS[language][meter]}"


def _number(value: int | None, meter: Meter, language: Language) -> str:
    if value is None:
        return "illimité :" if language == "fr" else "unlimited:"
    amount = Decimal(value).scaleb(-_DECIMALS.get(meter, 0))
    written = f"{amount:,f}"
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return written.replace(",", "\u202f").replace(".", ",") if language == "fr" else written


def _selected(selector: str, language: Language) -> str:
    kind, _, name = selector.partition(":")
    if not name:
        return ""
    each, one = _KINDS[language][kind]
    colon = "\u00a0:" if language == "fr" else ":"
    return f" ({each})" if name == "*" else f" ({one}{colon} {name})"
