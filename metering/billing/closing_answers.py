"""Months and documents as they leave: over HTTP and on the command line. Amounts are decimal numbers, as text."""

from collections.abc import Sequence
from datetime import date, datetime

import msgspec
import sqlalchemy as sa

from metering.billing.answers import in_cents
from metering.billing.documents import KeptDocument
from metering.billing.periods import Closing, State, is_closed, latest_closing
from metering.billing.reviewing import Review
from metering.rules.billing.documents import DocumentKind


class ClosingShown(msgspec.Struct):
    """A month of the books, and its latest closing: what its documents follow from, and what was found.

    state: open (nothing was done), draft, finalising (begun for good, not yet complete), final.
    """

    month: str
    state: State
    ledger_batch: int | None = None
    carbon_batch: int | None = None
    catalog_version: int | None = None
    issued_on: date | None = None
    author: str | None = None
    zero_reason: str | None = None
    started_at: datetime | None = None
    review: Review | None = None


class DocumentShown(msgspec.Struct):
    """A document without its lines. seq: its place in the chain; files: what it can be had as."""

    number: str
    seq: int
    kind: DocumentKind
    month: str
    tenant: str
    convention: str | None
    settlement: str
    currency: str
    issued_on: date
    net: str
    vat: str
    gross: str
    preceding: str | None
    files: list[str]


def shown_month(connection: sa.Connection, month: str) -> ClosingShown:
    """A month as it stands."""
    found = latest_closing(connection, month)
    if found is None:
        return ClosingShown(month, "open")
    closing, review = found
    return shown_closing(closing, msgspec.convert(review, Review), is_closed=is_closed(connection, month))


def shown_closing(closing: Closing, review: Review, *, is_closed: bool) -> ClosingShown:
    """A closing as it leaves."""
    state: State = "draft" if not closing.is_final else "final" if is_closed else "finalising"
    return ClosingShown(
        closing.month, state, closing.ledger_batch, closing.carbon_batch, closing.catalog_version, closing.issued_on,
        closing.author, closing.zero_reason, closing.started_at, review,
    )  # fmt: skip


def shown_document(one: KeptDocument) -> DocumentShown:
    """A document as lists have it."""
    return DocumentShown(
        one.number, one.seq, one.kind, one.month, one.tenant, one.convention, one.settlement, one.currency,
        one.issued_on, in_cents(one.net_cents), in_cents(one.vat_cents), in_cents(one.gross_cents), one.preceding,
        sorted(one.files),
    )  # fmt: skip


def shown_documents(found: Sequence[KeptDocument]) -> list[DocumentShown]:
    """Documents as lists have them."""
    return [shown_document(one) for one in found]
