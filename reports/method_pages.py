"""The page "Méthode et accessibilité", at `/method`: readable without signing in, it asks nothing of the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.types import Guard

from reports.frame import asked_language, frame_of
from reports.rendering import html, render
from reports.wording import Language, say


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: the keys of its heading and of its sentences."""

    heading: str
    sentences: tuple[str, ...]


SECTIONS = (
    Section(
        "method.counting",
        (
            "method.counting.event", "method.counting.content", "method.counting.tokens", "method.counting.others",
            "method.counting.unknown", "method.counting.time",
        ),
    ),
    Section(
        "method.carbon",
        (
            "method.carbon.energy", "method.carbon.use", "method.carbon.making", "method.carbon.tiers",
            "method.carbon.bounds", "method.carbon.unmeasured", "method.carbon.when",
        ),
    ),
    Section(
        "method.money",
        (
            "method.money.line", "method.money.indicative", "method.money.valued", "method.money.request",
            "method.money.unpriced",
        ),
    ),
    Section(
        "method.sources",
        (
            "method.sources.codecarbon", "method.sources.ecologits", "method.sources.mlenergy",
            "method.sources.building",
        ),
    ),
)  # fmt: skip
GLOSSARY = ("token", "request", "entry", "limit", "hold", "convention", "envelope", "book", "co2e", "factor")
DECLARATION = (
    Section(
        "method.checked",
        (
            "method.checked.axe", "method.checked.keyboard", "method.checked.zoom", "method.checked.scripts",
            "method.checked.contrast", "method.checked.charts",
        ),
    ),
    Section(
        "method.unchecked",
        (
            "method.unchecked.audit", "method.unchecked.readers", "method.unchecked.pdf", "method.unchecked.explorer",
        ),
    ),
)  # fmt: skip
"""What `tests/pages` checks, and what nothing does: whoever changes one changes the other."""


def method_pages(*, guards: Sequence[Guard] = ()) -> Router:
    """The page. guards: may tell who reads, and keep nobody away."""

    @get("/method", guards=list(guards), include_in_schema=False, media_type=MediaType.HTML)
    async def method(request: Request[Any, Any, Any]) -> Response[str]:
        language, settings = asked_language(request), request.app.state.settings
        text = render(
            "method.html",
            frame_of(request, language),
            sections=SECTIONS,
            glossary=GLOSSARY,
            declaration=DECLARATION,
            commitment=_commitment(settings.operator_name, language),
            contact=settings.accessibility_contact,
        )
        return html(text, language)

    return Router("/", route_handlers=[method])


def _commitment(name: str | None, language: Language) -> str:
    entity = name or say(language, "method.declaration.entity")
    return say(language, "method.declaration.commitment", entity=entity, version=version("jauge"))
