"""Models, where they run, and their end."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from metering.catalog.documents.fields import (
    PUE_DECIMALS,
    Address,
    Count,
    Document,
    Instant,
    Line,
    ModelName,
    Number,
    in_units,
)
from metering.rules.quantities import Operation
from metering.rules.retirement import REACHABLE_DAYS, Retiring, earliest_end


class Category(Document, frozen=True, kw_only=True):
    """What a caller may ask for instead of a model."""

    id: ModelName
    name: Line
    model: ModelName | None = None


class Model(Document, frozen=True, kw_only=True):
    """A model that is offered, or was."""

    id: ModelName
    name: Line
    category: ModelName
    publisher: Line
    licence: Line
    licence_url: Address | None = None
    parameters: Count | None = None
    active_parameters: Count | None = None
    precision: Annotated[str, Meta(min_length=1, max_length=20)] | None = None
    context_tokens: Count | None = None
    kv_bytes_per_token: Count | None = None
    operations: list[Operation] = []
    available_from: Instant | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.parameters is not None and (self.active_parameters or 0) > self.parameters:
            yield "active_parameters", "at most parameters"


class Alias(Document, frozen=True, kw_only=True):
    """Another name of a model or of a category."""

    id: ModelName
    model: ModelName | None = None
    category: ModelName | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if (self.model is None) == (self.category is None):
            yield "model", "a model or a category"


class Deployment(Document, frozen=True, kw_only=True):
    """Where a model runs or ran: `replicas` of it, of `accelerators` each, from `starts_at` to `ends_at`, exclusive."""

    id: ModelName
    model: ModelName
    replicas: Number = 1
    accelerator: Line | None = None
    accelerators: Number | None = None
    starts_at: Instant
    ends_at: Instant | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ends_at is not None and self.ends_at < self.starts_at:
            yield "ends_at", "starts_at or later"


class Site(Document, frozen=True, kw_only=True):
    """Where nodes are. `zone` is the electricity's, as emission factors name it; `contract` that of market-based ones.

    pue: energy of the building for one of its machines, the best guess and its bounds.
    """

    id: ModelName
    name: Line
    zone: ModelName
    contract: ModelName | None = None
    pue: Decimal
    pue_lower: Decimal
    pue_upper: Decimal

    def faults(self) -> Iterator[tuple[str, str]]:
        for field in ("pue_lower", "pue", "pue_upper"):
            value = getattr(self, field)
            if not (in_units(value, PUE_DECIMALS) and 1 <= value <= 10):
                yield field, f"1 to 10, with at most {PUE_DECIMALS} decimals"
                return
        if not self.pue_lower <= self.pue <= self.pue_upper:
            yield "pue", "pue_lower to pue_upper"


class Retirement(Document, frozen=True, kw_only=True):
    """A model or category that is being replaced; from `retires_at` on it is refused."""

    kind: Retiring
    subject: ModelName
    successor: ModelName | None = None
    announced_at: Instant
    retires_at: Instant

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.retires_at < earliest_end(self.kind, self.announced_at):
            yield "retires_at", f"at least {REACHABLE_DAYS[self.kind]} days after announced_at"
        if self.successor == self.subject:
            yield "successor", "another one"
