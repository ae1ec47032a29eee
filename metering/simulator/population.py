"""Who calls and what answers: administrations, their applications, agents and keys; models and their replicas.

All of it is fixed, whatever the seed, so that a demo can register it beforehand.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

SOURCE = "demo/gateway"

Shape = Literal["office", "school", "always", "night"]

HOUR_WEIGHTS: Mapping[Shape, tuple[int, ...]] = MappingProxyType(
    {
        "office": (1, 1, 1, 1, 1, 1, 3, 15, 50, 85, 100, 88, 38, 48, 90, 95, 85, 60, 28, 12, 8, 6, 4, 2),
        "school": (1, 1, 1, 1, 1, 1, 5, 25, 45, 60, 65, 60, 45, 40, 60, 60, 60, 70, 60, 50, 65, 55, 25, 6),
        "always": (25, 20, 18, 18, 20, 25, 45, 70, 85, 95, 100, 95, 75, 80, 95, 95, 90, 80, 70, 65, 60, 50, 40, 30),
        "night": (90, 100, 100, 95, 70, 25, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 5, 30, 60),
    }
)
"""Share of a day's requests by hour in Europe/Paris; office hours dip at lunch."""

WEEKDAY_FACTORS: Mapping[Shape, tuple[float, ...]] = MappingProxyType(
    {
        "office": (1.3, 1.45, 1.4, 1.4, 1.15, 0.18, 0.12),
        "school": (1.25, 1.25, 0.9, 1.25, 1.15, 0.3, 0.9),
        "always": (1.05, 1.05, 1.05, 1.05, 1.05, 0.9, 0.85),
        "night": (1.25, 1.25, 1.25, 1.25, 1.25, 0.5, 0.25),
    }
)
"""Requests of a day from Monday to Sunday, by the mean day; a week sums to 7."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model, or a service without one, and how fast it works."""

    name: str
    category: str | None
    replicas: int
    first_token_ms: int = 150
    token_us: int = 0

    @property
    def deployments(self) -> tuple[str, ...]:
        """Ids of its replicas; none for a service."""
        return tuple(f"{self.name}-{number}" for number in range(1, self.replicas + 1))


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.name: model
        for model in (
            Model("albert-small", "openweight-small", 2, first_token_ms=120, token_us=9_000),
            Model("albert-small-2024", "openweight-small", 1, first_token_ms=160, token_us=13_000),
            Model("albert-large", "openweight-large", 3, first_token_ms=420, token_us=24_000),
            Model("albert-code", "openweight-code", 1, first_token_ms=140, token_us=11_000),
            Model("albert-guard", "openweight-moderation", 1, first_token_ms=40),
            Model("embeddings-m3", "openweight-embeddings", 2, first_token_ms=25),
            Model("rerank-m3", "openweight-rerank", 1, first_token_ms=45),
            Model("whisper-large", "openweight-audio", 1, first_token_ms=300),
            Model("ocr-vl", "openweight-ocr", 1, first_token_ms=500),
            Model("image-flow", "openweight-image", 1, first_token_ms=4_000),
            Model("document-parser", None, 0, first_token_ms=250),
            Model("vector-store", None, 0),
            Model("web-index", None, 0, first_token_ms=700),
        )
    }
)
RETIRING_MODEL = "albert-small-2024"
"""Replaced by another of its category: asked for by its own name only, and by few."""
REASONING_MODELS = frozenset({"albert-large"})


@dataclass(frozen=True, slots=True)
class Use:
    """An operation on a model."""

    operation: str
    model: Model


@dataclass(frozen=True, slots=True)
class Caller:
    """An agent behind a key; a pipeline has a key and no agent."""

    number: int
    user: str | None
    api_key: str
    by_category: bool
    """Whether it asks for a category of models instead of a model."""


@dataclass(frozen=True, slots=True)
class Administration:
    """An administration of the demo."""

    id: str
    name: str
    users: tuple[str, ...]


def _users(tenant: str, count: int) -> tuple[str, ...]:
    """Pseudonyms of an administration's agents."""
    return tuple(f"u-{hashlib.sha256(f'{tenant}/{number}'.encode()).hexdigest()[:10]}" for number in range(count))


ADMINISTRATIONS: Mapping[str, Administration] = MappingProxyType(
    {
        tenant: Administration(tenant, name, _users(tenant, count))
        for tenant, name, count in (
            ("dinum", "Direction interministérielle du numérique", 58),
            ("interieur", "Ministère de l'Intérieur", 46),
            ("education", "Ministère de l'Éducation nationale", 52),
            ("finances", "Ministère de l'Économie et des Finances", 30),
            ("sante", "Ministère de la Santé", 22),
        )
    }
)


@dataclass(frozen=True)
class Application:
    """A product that calls, within a project of an administration."""

    tenant: str
    project: str
    name: str
    shape: Shape
    weight: float
    """Share of the platform's requests."""
    mix: Mapping[str, int]
    """`operation model` to weight."""
    keys: int = 1
    pipeline: bool = False
    """Whether a program calls, without an agent."""
    stored_bytes: int = 0
    """Size of its collection of documents; hosting is metered by the hour."""

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """What it calls for."""
        return tuple(Use(operation, MODELS[model]) for operation, model in map(str.split, self.mix))

    @cached_property
    def use_weights(self) -> tuple[int, ...]:
        """Weights of its uses, cumulated."""
        return tuple(accumulate(self.mix.values()))

    @cached_property
    def callers(self) -> tuple[Caller, ...]:
        """Who calls through it; the first ones call most."""
        users = ADMINISTRATIONS[self.tenant].users
        # Turned by the project, so that those who use one application most are not those who use all of them most.
        turn = hashlib.sha256(self.project.encode()).digest()[0] % len(users)
        agents = (users[turn:] + users[:turn])[: max(20, len(users) // 2)]
        people: tuple[str | None, ...] = (None,) * self.keys if self.pipeline else agents
        return tuple(
            Caller(number, user, f"{self.project}-k{number % self.keys + 1}", by_category=number % self.keys % 3 == 1)
            for number, user in enumerate(people)
        )

    @cached_property
    def caller_weights(self) -> tuple[float, ...]:
        """Weights of its callers, cumulated."""
        return tuple(accumulate(1 / (1 + rank) ** 0.8 for rank in range(len(self.callers))))


_RAG = {"search embeddings-m3": 30, "rerank rerank-m3": 20, "chat albert-large": 25, "chat albert-small": 10}
_INGEST = {"file_ingest document-parser": 5, "embedding embeddings-m3": 20}

APPLICATIONS: tuple[Application, ...] = (
    Application(
        "dinum", "dinum-assistant", "assistant-agents", "office", 20,
        {"chat albert-large": 46, "chat albert-small": 34, "web_search web-index": 8, "other albert-guard": 10,
         "image image-flow": 2}, keys=3,
    ),
    Application(
        "dinum", "dinum-code", "aide-au-code", "office", 8,
        {"completion albert-code": 60, "chat albert-code": 40}, keys=2,
    ),
    Application(
        "dinum", "dinum-evaluation", "banc-essai", "always", 3,
        {"chat albert-small": 34, "chat albert-small-2024": 6, "embedding embeddings-m3": 30, "rerank rerank-m3": 30},
        pipeline=True,
    ),
    Application(
        "interieur", "interieur-courrier", "reponse-courrier", "office", 11,
        {"chat albert-large": 60, "parse document-parser": 20, "ocr ocr-vl": 20}, keys=2,
    ),
    Application(
        "interieur", "interieur-auditions", "retranscription", "office", 4,
        {"transcription whisper-large": 70, "chat albert-small": 26, "chat albert-small-2024": 4},
    ),
    Application(
        "interieur", "interieur-documentation", "base-documentaire", "office", 8,
        _RAG | _INGEST, keys=2, stored_bytes=48_000_000_000
    ),
    Application(
        "education", "education-enseignants", "assistant-enseignants", "school", 14,
        {"chat albert-small": 84, "chat albert-large": 10, "other albert-guard": 6}, keys=3,
    ),
    Application(
        "education", "education-ressources", "recherche-ressources", "school", 6,
        _RAG | _INGEST, keys=2, stored_bytes=21_000_000_000
    ),
    Application(
        "finances", "finances-factures", "lecture-factures", "night", 9,
        {"ocr ocr-vl": 50, "parse document-parser": 15, "chat albert-small": 35}, keys=2, pipeline=True,
    ),
    Application(
        "finances", "finances-assistance", "assistant-redaction", "office", 4,
        {"chat albert-large": 55, "chat albert-small": 37, "chat albert-small-2024": 8}
    ),
    Application(
        "finances", "finances-marches", "analyse-marches", "office", 3, _RAG | {"file_ingest document-parser": 8},
        stored_bytes=9_000_000_000,
    ),
    Application(
        "sante", "sante-comptes-rendus", "dictee", "always", 6,
        {"transcription whisper-large": 55, "chat albert-large": 45}, keys=2
    ),
    Application(
        "sante", "sante-veille", "veille-sanitaire", "always", 4,
        {"web_search web-index": 30, "chat albert-small": 50, "embedding embeddings-m3": 20}, keys=2, pipeline=True,
    ),
)  # fmt: skip

assert len({(one.project, one.name) for one in APPLICATIONS}) == len(APPLICATIONS)
