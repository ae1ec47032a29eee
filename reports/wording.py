"""How things are said: the two dictionaries, and numbers, durations, dates and periods in a reader's language.

Pure. Unknown values (None) are the caller's to name: nothing here turns them into a number.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from metering.rules.periods import Bucket

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

NARROW = "\u202f"
"""Narrow no-break space: groups digits in French and precedes ; ? ! and %."""
FIXED = "\u00a0"
"""No-break space: holds a number and its unit on one line, and precedes the colon in French."""

FRENCH: Mapping[str, str] = {
    "product": "Jauge",
    "tagline": "Registre d’usage de la plateforme d’IA",
    "skip": "Aller au contenu",
    "navigation": "Pages",
    "language": "Langue",
    "zone": "Dates et heures du fuseau {zone}.",
    "footer": "Les chiffres sont ceux du registre. « — » veut dire inconnu, jamais zéro.",
    "usage": "Consommation",
    "usage.own": "Votre consommation",
    "usage.of": "Consommation – {administration}",
    "notices": "Avis",
    "notice.maintenance": "Maintenance",
    "notice.incident": "Incident",
    "notice.information": "Information",
    "notice.live": "en cours",
    "notice.coming": "à venir",
    "notice.from_to": "Du {start} au {end} (fuseau {zone})",
    "notice.since": "Depuis le {start} (fuseau {zone}), jusqu’à nouvel ordre",
    "notice.coming_open": "À partir du {start} (fuseau {zone}), jusqu’à nouvel ordre",
    "retirement": "Retrait",
    "retirement.model": "Le modèle {name} va être retiré",
    "retirement.category": "La catégorie {name} va être retirée",
    "retirement.from": "Toute requête qui demande ce nom sera refusée à partir du {start} (fuseau {zone}).",
    "retirement.successor": "Successeur\u00a0: {successor}.",
    "retirement.no_successor": "Aucun successeur n’est annoncé.",
    "period_of": "Du {first} au {last} inclus",
    "day_of": "Le {first}",
    "as_of": "Données jusqu’à l’écriture n°\u00a0{seq}, enregistrée le {when}.",
    "as_of_asked": "Données telles qu’elles étaient à l’écriture n°\u00a0{seq}.",
    "as_of_nothing": "Le registre ne contient aucune écriture.",
    "choose": "Choisir les données",
    "from": "Du",
    "to": "Jusqu’au (inclus)",
    "bucket": "Par",
    "bucket.hour": "heure",
    "bucket.day": "jour",
    "bucket.month": "mois",
    "group_by": "Répartir par",
    "group.none": "aucune répartition",
    "group.model": "modèle",
    "group.tenant": "administration",
    "group.project": "projet",
    "group.operation": "opération",
    "group.user": "agent",
    "group.api_key": "clé d’API",
    "quantity": "Grandeur",
    "filter.any": "sans filtre",
    "filter.tenant": "Administration",
    "filter.model": "Modèle",
    "filter.operation": "Opération",
    "filter.project": "Projet",
    "apply": "Appliquer",
    "reset": "Effacer",
    "presets": "Périodes courantes",
    "preset.days": "{days} derniers jours",
    "preset.this_month": "Ce mois-ci",
    "preset.last_month": "Le mois dernier",
    "headline": "En bref",
    "uncounted": "Requêtes sans comptage",
    "uncounted.why": "leur consommation est inconnue, en tout ou partie",
    "failed": "Requêtes non abouties",
    "failed.detail": "erreurs\u00a0: {error} · interruptions\u00a0: {aborted} · refus\u00a0: {refused}",
    "chart.title": "{what} par {bucket}",
    "chart.title_split": "{what} par {bucket} et par {group}",
    "chart.label": "Graphique en barres empilées : {title}, {period}. Les valeurs sont dans le tableau de données.",
    "chart.coarser": (
        "{count} intervalles seraient illisibles : le graphique est tracé par {bucket}. Le tableau reste par {asked}."
    ),
    "chart.flagged": ("▼ Intervalle comptant au moins une requête sans comptage : sa barre est peut-être incomplète."),
    "chart.legend": "Légende, du bas vers le haut des barres",
    "chart.failed": "Le graphique n’a pas pu être tracé. Les chiffres ci-dessous sont complets.",
    "finding.total": "{total} sur la période",
    "finding.leader": "{leader} représente {share} des {total} de la période",
    "finding.peak": "{sentence} ; le maximum est atteint {when}, avec {amount}.",
    "finding.flat": "{sentence}.",
    "finding.unknown": "Cette grandeur est inconnue pour toute la période.",
    "when.hour": "le {label}",
    "when.day": "le {label}",
    "when.month": "en {label}",
    "ranking": "Classement par {group}",
    "ranking.rank": "Rang",
    "ranking.share": "Part",
    "ranking.rest": "Le détail des autres ({count})",
    "ranking.cut": "Seuls les {count} premiers sont montrés ; le fichier CSV les contient tous.",
    "of_audio": "{amount} d’audio",
    "others": "Autres ({count})",
    "others.one": "Autre (1)",
    "all": "Ensemble",
    "unnamed": "non renseigné",
    "unknown": "inconnu",
    "data": "Tableau de données",
    "data.caption": "{what} par {bucket}, {period}. « — » : valeur inconnue.",
    "data.count": "{count} lignes",
    "data.count_one": "1 ligne",
    "data.when": "Début",
    "data.page": "Page {page} sur {pages}",
    "data.previous": "Page précédente",
    "data.next": "Page suivante",
    "data.pages": "Pages du tableau",
    "data.scroll": "Tableau, à faire défiler horizontalement",
    "csv": "Télécharger en CSV",
    "column.requests": "Requêtes",
    "column.failed": "Non abouties",
    "column.uncounted": "Sans comptage",
    "empty": "Aucune consommation à montrer",
    "empty.nothing": (
        "Aucun événement d’usage n’est encore enregistré. La passerelle en envoie un après chaque requête :"
    ),
    "empty.nothing_yet": "Aucune requête n’est encore enregistrée.",
    "empty.nothing_demo": "Pour voir cette page avec des données d’exemple, lancez la démonstration :",
    "empty.period": "Aucun événement n’est enregistré {period}.",
    "empty.filters": "Aucun événement {period} ne correspond aux filtres choisis.",
    "empty.latest": "Voir la dernière période enregistrée ({period})",
    "empty.unfilter": "Retirer les filtres",
    "error": "Cette page n’a pas pu être affichée",
    "error.parameters": "L’adresse de la page contient des valeurs qui ne peuvent pas être lues :",
    "error.request": "Identifiant de la requête",
    "error.back": "Revenir aux trente derniers jours",
    "error.unavailable": "Le registre est momentanément indisponible. Réessayez dans quelques instants.",
    "error.not_yours": (
        "Ces données ne sont pas les vôtres\u00a0: vous ne voyez que celles de votre compte ou de votre administration."
    ),
    "error.rule": "Cette demande ne peut pas être satisfaite : {detail}",
    "activation": "Activer votre compte",
    "activation.field": "Code d’activation",
    "activation.hint": "Il est dans le courriel qui annonce votre accès ou votre invitation. Il sert une seule fois.",
    "activation.submit": "Activer",
    "activation.missing": "Saisissez le code du courriel.",
    "activation.done": "Votre compte est activé",
    "activation.token": "Votre jeton d’accès",
    "activation.once": (
        "Ce jeton n’est affiché qu’une seule fois\u00a0: copiez-le en lieu sûr avant de quitter ou de recharger cette "
        "page, et ne le transmettez à personne."
    ),
    "activation.account": "Compte",
    "activation.expiry": "Expiration du jeton",
    "activation.next": "Ce qu’il reste à faire",
    "activation.calls": "Dans ces appels, remplacez $TOKEN par votre jeton, et les mots en majuscules par vos valeurs.",
    "activation.read": "Lisez les conditions en vigueur\u00a0:",
    "activation.accept": "Acceptez chacune d’elles, dans la version lue\u00a0:",
    "activation.key": "Créez une clé d’API\u00a0; elle aussi n’est affichée qu’une seule fois\u00a0:",
    "activation.browse": (
        "Votre consommation est à l’adresse {url}. Le navigateur y demande un nom et un mot de passe\u00a0: un nom "
        "quelconque, et ce jeton."
    ),
    "activation.failed": "L’activation n’a pas abouti",
    "activation.retry": "Saisir un code",
    "activation.unknown": "Ce code n’existe pas.",
    "activation.check": "Copiez-le en entier depuis le dernier courriel reçu, puis saisissez-le de nouveau.",
    "activation.used": "Ce code a déjà servi\u00a0; le jeton a été affiché à ce moment-là.",
    "activation.expired": "Ce code a expiré, ou n’est plus accepté.",
    "activation.again": (
        "Pour recevoir un nouveau code, demandez de nouveau un accès, ou demandez une invitation à un gestionnaire de "
        "votre administration. Un compte déjà ouvert reçoit ainsi un nouveau jeton."
    ),
    "activation.tenant_suspended": "Votre administration est suspendue.",
    "activation.ask_operator": (
        "Adressez-vous à l’opérateur de la plateforme. Le code n’a pas été utilisé\u00a0; il vaut jusqu’à la date du "
        "courriel."
    ),
    "activation.account_suspended": "Votre compte est suspendu.",
    "activation.ask_manager": (
        "Adressez-vous à un gestionnaire de votre administration. Le code n’a pas été utilisé\u00a0; il vaut jusqu’à "
        "la date du courriel."
    ),
    "activation.later": "Ouvrez alors de nouveau le lien du courriel. Si le code a déjà servi, la page le dira.",
    "bad.date": "« {name} » n’est pas une date. Attendu : une date de la forme 2026-09-30.",
    "bad.order": "La date de début ({first}) est après la date de fin ({last}).",
    "bad.span": "La période compte {days} jours. Par {bucket}, {most} au plus ; choisissez un intervalle plus large.",
    "bad.choice": "« {name} » n’a pas une valeur connue. Attendu : {expected}.",
    "bad.number": "« {name} » n’est pas un nombre entier positif.",
    "bad.repeated": "« {name} » est donné plusieurs fois. Attendu : une seule valeur.",
    "bad.long": "« {name} » est trop long. Attendu : {most} caractères au plus.",
    "bad.unknown": "« {name} » n’est pas un paramètre de cette page.",
}

ENGLISH: Mapping[str, str] = {
    "product": "Jauge",
    "tagline": "Usage ledger of the AI platform",
    "skip": "Skip to content",
    "navigation": "Pages",
    "language": "Language",
    "zone": "Dates and times of the {zone} time zone.",
    "footer": "Figures are those of the ledger. “—” means unknown, never zero.",
    "usage": "Usage",
    "usage.own": "Your use",
    "usage.of": "Usage – {administration}",
    "notices": "Notices",
    "notice.maintenance": "Maintenance",
    "notice.incident": "Incident",
    "notice.information": "Information",
    "notice.live": "under way",
    "notice.coming": "to come",
    "notice.from_to": "From {start} to {end} ({zone} time zone)",
    "notice.since": "Since {start} ({zone} time zone), until further notice",
    "notice.coming_open": "From {start} ({zone} time zone), until further notice",
    "retirement": "Retirement",
    "retirement.model": "The model {name} is going to be retired",
    "retirement.category": "The category {name} is going to be retired",
    "retirement.from": "Every request for this name will be refused from {start} ({zone} time zone).",
    "retirement.successor": "Successor: {successor}.",
    "retirement.no_successor": "No successor is announced.",
    "period_of": "{first} to {last}, both included",
    "day_of": "{first}",
    "as_of": "Data up to ledger entry no.\u00a0{seq}, recorded on {when}.",
    "as_of_asked": "Data as it was at ledger entry no.\u00a0{seq}.",
    "as_of_nothing": "The ledger holds no entry.",
    "choose": "Choose the data",
    "from": "From",
    "to": "To (included)",
    "bucket": "By",
    "bucket.hour": "hour",
    "bucket.day": "day",
    "bucket.month": "month",
    "group_by": "Split by",
    "group.none": "no split",
    "group.model": "model",
    "group.tenant": "administration",
    "group.project": "project",
    "group.operation": "operation",
    "group.user": "user",
    "group.api_key": "API key",
    "quantity": "Quantity",
    "filter.any": "no filter",
    "filter.tenant": "Administration",
    "filter.model": "Model",
    "filter.operation": "Operation",
    "filter.project": "Project",
    "apply": "Apply",
    "reset": "Clear",
    "presets": "Common periods",
    "preset.days": "Last {days} days",
    "preset.this_month": "This month",
    "preset.last_month": "Last month",
    "headline": "At a glance",
    "uncounted": "Requests without a count",
    "uncounted.why": "what they consumed is unknown, in whole or in part",
    "failed": "Requests not completed",
    "failed.detail": "errors: {error} · aborted: {aborted} · refused: {refused}",
    "chart.title": "{what} by {bucket}",
    "chart.title_split": "{what} by {bucket} and by {group}",
    "chart.label": "Stacked bar chart: {title}, {period}. The values are in the data table.",
    "chart.coarser": (
        "{count} intervals would be unreadable: the chart is drawn by {bucket}. The table is still by {asked}."
    ),
    "chart.flagged": "▼ Interval with at least one request without a count: its bar may be incomplete.",
    "chart.legend": "Legend, from the bottom of the bars to the top",
    "chart.failed": "The chart could not be drawn. The figures below are complete.",
    "finding.total": "{total} over the period",
    "finding.leader": "{leader} accounts for {share} of the {total} of the period",
    "finding.peak": "{sentence}; the maximum is reached {when}, with {amount}.",
    "finding.flat": "{sentence}.",
    "finding.unknown": "This quantity is unknown over the whole period.",
    "when.hour": "on {label}",
    "when.day": "on {label}",
    "when.month": "in {label}",
    "ranking": "Ranking by {group}",
    "ranking.rank": "Rank",
    "ranking.share": "Share",
    "ranking.rest": "The others in detail ({count})",
    "ranking.cut": "Only the first {count} are shown; the CSV file has them all.",
    "of_audio": "{amount} of audio",
    "others": "Others ({count})",
    "others.one": "Other (1)",
    "all": "All",
    "unnamed": "not stated",
    "unknown": "unknown",
    "data": "Data table",
    "data.caption": "{what} by {bucket}, {period}. “—”: unknown value.",
    "data.count": "{count} rows",
    "data.count_one": "1 row",
    "data.when": "Start",
    "data.page": "Page {page} of {pages}",
    "data.previous": "Previous page",
    "data.next": "Next page",
    "data.pages": "Pages of the table",
    "data.scroll": "Table, scrolls sideways",
    "csv": "Download as CSV",
    "column.requests": "Requests",
    "column.failed": "Not completed",
    "column.uncounted": "Without a count",
    "empty": "No usage to show",
    "empty.nothing": "No usage event has been recorded yet. The gateway sends one after each request:",
    "empty.nothing_yet": "No request has been recorded yet.",
    "empty.nothing_demo": "To see this page with sample data, run the demonstration:",
    "empty.period": "No event is recorded for this period ({period}).",
    "empty.filters": "No event of this period ({period}) matches the chosen filters.",
    "empty.latest": "See the latest recorded period ({period})",
    "empty.unfilter": "Remove the filters",
    "error": "This page could not be shown",
    "error.parameters": "The address of the page holds values that can’t be read:",
    "error.request": "Request id",
    "error.back": "Back to the last thirty days",
    "error.unavailable": "The ledger is away for a moment. Try again shortly.",
    "error.not_yours": "These data are not yours: you can only see those of your account or your administration.",
    "error.rule": "This can’t be answered: {detail}",
    "activation": "Activate your account",
    "activation.field": "Activation code",
    "activation.hint": "It is in the mail that tells you of your access or invitation. It works once.",
    "activation.submit": "Activate",
    "activation.missing": "Enter the code of the mail.",
    "activation.done": "Your account is activated",
    "activation.token": "Your access token",
    "activation.once": (
        "This token is shown only once: copy it to a safe place before you leave or reload this page, and don’t give "
        "it to anybody."
    ),
    "activation.account": "Account",
    "activation.expiry": "End of the token",
    "activation.next": "What is left to do",
    "activation.calls": "In these calls, put your token in place of $TOKEN, and your values for the words in capitals.",
    "activation.read": "Read the terms in force:",
    "activation.accept": "Accept each of them, in the version you read:",
    "activation.key": "Make an API key; it is shown only once, too:",
    "activation.browse": (
        "Your usage is at {url}. The browser asks for a name and a password there: any name, and this token."
    ),
    "activation.failed": "The activation did not succeed",
    "activation.retry": "Enter a code",
    "activation.unknown": "This code does not exist.",
    "activation.check": "Copy it whole from the last mail you got, then enter it again.",
    "activation.used": "This code has been used; the token was shown then.",
    "activation.expired": "This code has expired, or is no longer accepted.",
    "activation.again": (
        "To get a new code, ask for access again, or ask a manager of your administration for an invitation. An "
        "account that exists gets a new token this way."
    ),
    "activation.tenant_suspended": "Your administration is suspended.",
    "activation.ask_operator": (
        "Ask the platform’s operator. The code has not been used; it is good until the date in the mail."
    ),
    "activation.account_suspended": "Your account is suspended.",
    "activation.ask_manager": (
        "Ask a manager of your administration. The code has not been used; it is good until the date in the mail."
    ),
    "activation.later": "Then open the link of the mail again. If the code has been used, the page will say so.",
    "bad.date": "“{name}” is not a date. Expected: a date such as 2026-09-30.",
    "bad.order": "The first day ({first}) is after the last day ({last}).",
    "bad.span": "The period has {days} days. By {bucket}, {most} at most; choose a wider interval.",
    "bad.choice": "“{name}” has no known value. Expected: {expected}.",
    "bad.number": "“{name}” is not a positive whole number.",
    "bad.repeated": "“{name}” is given more than once. Expected: a single value.",
    "bad.long": "“{name}” is too long. Expected: {most} characters at most.",
    "bad.unknown": "“{name}” is not a parameter of this page.",
}

DICTIONARIES: Mapping[Language, Mapping[str, str]] = {"fr": FRENCH, "en": ENGLISH}

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

MONTHS: Mapping[Language, tuple[str, ...]] = {
    "fr": (
        *("janvier", "février", "mars", "avril", "mai", "juin"),
        *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    ),
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}
MONTHS_SHORT: Mapping[Language, tuple[str, ...]] = {
    "fr": ("janv.", "févr.", "mars", "avr.", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc."),
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
}
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


def say(language: Language, key: str, **values: object) -> str:
    """A sentence of the dictionary with its values put in. Raises: KeyError for an unknown key."""
    return DICTIONARIES[language][key].format(**values)


def preferred_language(accept_language: str, otherwise: Language) -> Language:
    """Language that an Accept-Language header (RFC 9110, 12.5.4) puts first, of those we have; else `otherwise`."""
    best: tuple[float, Language] | None = None
    for part in accept_language.split(","):
        tag, _, parameters = part.partition(";")
        primary = tag.strip().lower().split("-")[0]
        weight = _weight(parameters)
        for language in LANGUAGES:
            if primary == language and weight > 0 and (best is None or weight > best[0]):
                best = (weight, language)
    return otherwise if best is None else best[1]


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


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


def day(value: date, language: Language) -> str:
    """ "1er septembre 2026" or "1 September 2026"."""
    return f"{_day_number(value, language)} {MONTHS[language][value.month - 1]} {value.year}"


def day_short(value: date, language: Language) -> str:
    """ "1er sept." or "1 Sep"."""
    return f"{_day_number(value, language)}{FIXED}{MONTHS_SHORT[language][value.month - 1]}"


def month(value: date, language: Language) -> str:
    """ "septembre 2026"."""
    return f"{MONTHS[language][value.month - 1]} {value.year}"


def month_short(value: date, language: Language) -> str:
    """ "sept. 2026"."""
    return f"{MONTHS_SHORT[language][value.month - 1]}{FIXED}{value.year}"


def hour_short(value: datetime, language: Language) -> str:
    """ "14 h" or "14:00"."""
    return f"{value.hour}{FIXED}h" if language == "fr" else f"{value.hour:02d}:00"


def moment(value: datetime, zone: ZoneInfo, language: Language) -> str:
    """ "14 septembre 2026 à 14:03" in a zone; a time that comes twice in a night carries its UTC offset."""
    local = value.astimezone(zone)
    between = " à " if language == "fr" else " at "
    said = f"{day(local.date(), language)}{between}{local.hour:02d}:{local.minute:02d}"
    return f"{said} ({_offset(local)})" if _comes_twice(local) else said


def bucket_label(start: datetime, bucket: Bucket, zone: ZoneInfo, language: Language) -> str:
    """Name of the bucket that begins at an instant. An hour that comes twice in a night carries its UTC offset."""
    local = start.astimezone(zone)
    if bucket == "month":
        return month(local.date(), language)
    if bucket == "day":
        return day(local.date(), language)
    label = f"{day(local.date(), language)}, {hour_short(local, language)}"
    return f"{label} ({_offset(local)})" if _comes_twice(local) else label


def period(first: date, last: date, language: Language) -> str:
    """Two inclusive days, as they stand in a heading: what both share (year, month) is said once."""
    if first == last:
        return say(language, "day_of", first=day(first, language))
    if (first.year, first.month) == (last.year, last.month):
        opening = _day_number(first, language)
    elif first.year == last.year:
        opening = f"{_day_number(first, language)} {MONTHS[language][first.month - 1]}"
    else:
        opening = day(first, language)
    return say(language, "period_of", first=opening, last=day(last, language))


def in_sentence(text: str) -> str:
    """A heading's text with its first letter lowered, so that it can stand inside a sentence."""
    return text[:1].lower() + text[1:]


def _day_number(value: date, language: Language) -> str:
    return "1er" if language == "fr" and value.day == 1 else str(value.day)


def _comes_twice(local: datetime) -> bool:
    # The same wall time with the other fold has another offset only where the clock changes.
    folded = local.replace(fold=1 - local.fold)
    first, second = (local, folded) if local.fold == 0 else (folded, local)
    return (first.utcoffset() or timedelta()) > (second.utcoffset() or timedelta())


def _offset(local: datetime) -> str:
    minutes = int((local.utcoffset() or timedelta()).total_seconds()) // 60
    sign = "+" if minutes >= 0 else "\u2212"
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{sign}{hours}" + (f":{rest:02d}" if rest else "")
