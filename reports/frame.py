"""What surrounds every page: where else to go, who reads, and what the last action came to."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from litestar import Request

from metering.browsers import session_of
from metering.errors import JaugeError
from metering.identity import Principal, Role
from metering.visiting import Said, Session
from reports.selection import language_of
from reports.shown import Link
from reports.wording import DICTIONARIES, LANGUAGES, Language, say

READERS: frozenset[Role] = frozenset({"operator", "manager", "member"})

SIGN_IN = "/sign-in"
SIGN_OUT = "/sign-out"
SIGN_IN_DEMO = "/sign-in/demo"
SESSIONS = "/sessions"


@dataclass(frozen=True, slots=True)
class Destination:
    """A page of the navigation. roles: who may open it; empty: everybody, without signing in.

    is_below: named at the foot of pages, where people look for what isn't daily work.
    """

    path: str
    word: str
    roles: frozenset[Role] = READERS
    is_below: bool = False


NAVIGATION = (
    Destination("/", "nav.overview"),
    Destination("/usage", "nav.usage"),
    Destination("/requests", "nav.requests"),
    Destination("/quotas", "nav.quotas"),
    Destination("/carbon", "nav.carbon"),
    Destination("/documents", "nav.documents", frozenset({"operator", "manager"})),
    Destination("/models", "nav.models"),
    Destination("/people", "nav.people", frozenset({"operator", "manager"})),
    Destination("/terms", "nav.terms", is_below=True),
    Destination("/admin", "nav.admin", frozenset({"operator"})),
    Destination("/method", "nav.method", frozenset(), is_below=True),
)
"""Every page, in order. One is shown to those who may open it as soon as the application has a route for it."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who reads, as the frame names them. csrf: what forms send back; empty where nothing can be changed."""

    name: str
    role: str
    csrf: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of people that a reader of the demo may be. path: the page that the switch then shows."""

    id: str
    name: str
    path: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last action came to. place: field of the form at fault; entered: what the form held."""

    kind: str
    text: str
    place: str | None
    entered: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame of one page for one reader.

    person None: nobody has signed in; kinds: in the demo alone; is_state: in the design of the State.
    """

    language: Language
    language_urls: Mapping[Language, str]
    path: str = ""
    pages: tuple[Link, ...] = ()
    pages_below: tuple[Link, ...] = ()
    person: Person | None = None
    outcome: Outcome | None = None
    kinds: tuple[Kind, ...] = ()
    is_state: bool = False


def frame_of(
    request: Request[Any, Any, Any], language: Language, language_urls: Mapping[Language, str] | None = None
) -> Frame:
    """The frame of the page that a request asks for. language_urls: of the page itself in each language."""
    principal: Principal | None = request.scope["state"].get("principal")
    session = session_of(request)
    return Frame(
        language,
        language_urls or own_urls(request),
        path=request.url.path,
        pages=_pages(request, language, principal, is_below=False),
        pages_below=_pages(request, language, principal, is_below=True),
        person=None if principal is None else _person(principal, session, language),
        outcome=None if session is None or session.said is None else outcome_of(session.said, language),
        kinds=_kinds(request, language, session),
        is_state=getattr(request.app.state.settings, "state_design", None) is not None,
    )


def own_urls(request: Request[Any, Any, Any]) -> dict[Language, str]:
    """Address of the page that a request asks for, in each language."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
    return {language: f"{request.url.path}?{urlencode([*kept, ('lang', language)])}" for language in LANGUAGES}


def asked_language(request: Request[Any, Any, Any]) -> Language:
    """Language of a request: as its address asks, as the browser prefers, or as the settings say."""
    accepted = request.headers.get("accept-language", "")
    return language_of(request.query_params.get("lang"), accepted, request.app.state.settings.language)


def refusal_of(error: JaugeError) -> Said:
    """What to say of an error of ours: in words of the pages where they have some, else in its own."""
    word = f"refused.{error.code}"
    known = word in DICTIONARIES["fr"]
    return Said("refused", word if known else "refused", {} if known else {"detail": error.detail}, place=error.field)


def outcome_of(said: Said, language: Language) -> Outcome:
    """What the last action came to, in the reader's language."""
    return Outcome(said.kind, say(language, said.key, **said.values), said.place, said.entered)


def _pages(
    request: Request[Any, Any, Any], language: Language, principal: Principal | None, *, is_below: bool
) -> tuple[Link, ...]:
    there = {route.path for route in request.app.routes}
    return tuple(
        Link(say(language, one.word), f"{one.path}?lang={language}", is_current=_is_within(request.url.path, one.path))
        for one in NAVIGATION
        if one.is_below == is_below
        and one.path in there
        and (not one.roles or (principal is not None and principal.role in one.roles))
    )


def _person(principal: Principal, session: Session | None, language: Language) -> Person:
    name = principal.account or principal.name
    return Person(name, say(language, f"role.{principal.role}"), "" if session is None else session.csrf)


def _kinds(request: Request[Any, Any, Any], language: Language, session: Session | None) -> tuple[Kind, ...]:
    """Whom the demo lets a reader be; a page that isn't for them is left for the first one."""
    if not getattr(request.app.state.settings, "demo_accounts", None):
        return ()
    path = request.url.path
    closed: Set[Role] = {
        role for one in NAVIGATION if one.roles and _is_within(path, one.path) for role in READERS - one.roles
    }
    if path.startswith(SIGN_IN):
        closed = READERS
    current = None if session is None or session.way != "demo" else session.principal.role
    roles: tuple[Role, ...] = ("operator", "manager", "member")
    return tuple(
        Kind(role, say(language, f"demo.{role}"), "/" if role in closed else path, role == current) for role in roles
    )


def _is_within(path: str, place: str) -> bool:
    """Whether a page is one of the navigation, or below it."""
    return path == place or (place != "/" and path.startswith(f"{place}/"))
