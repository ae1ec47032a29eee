"""Documents as they are kept: rows in a chain, and files beside them that the chain covers."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from metering.billing.periods import Closing
from metering.errors import NotFound, Unavailable
from metering.rules.billing.chain import document_link
from metering.rules.billing.documents import BillingDocument, DocumentKind
from metering.rules.billing.numbering import SERIES, is_number, number_of
from metering.rules.chain import GENESIS
from metering.tables import billing_document

DOCUMENTS_LOCK = 0x444F4353  # "DOCS": one document after another gets its number and its link

Render = Callable[[BillingDocument], Mapping[str, bytes]]
"""Files of a document by suffix: a function of the document alone."""


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """A row of documents without its content. files: suffix to SHA-256."""

    seq: int
    number: str
    kind: DocumentKind
    month: str
    tenant: str
    convention: str | None
    settlement: str
    currency: str
    issued_on: date
    net_cents: int
    vat_cents: int
    gross_cents: int
    preceding: str | None
    files: Mapping[str, str]
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents: null is any."""

    tenant: str | None = None
    month: str | None = None
    kind: DocumentKind | None = None


_COLUMNS = [billing_document.c[name] for name in KeptDocument.__dataclass_fields__]


def canonical(document: BillingDocument) -> bytes:
    """A document as its row and the chain have it: JSON, in the order of its fields."""
    return msgspec.json.encode(document)


def read_canonical(text: str) -> BillingDocument:
    """The document that a row has."""
    return msgspec.json.decode(text, type=BillingDocument)


def issue(
    connection: sa.Connection, closing: Closing, place: int, draft: BillingDocument, render: Render, folder: Path
) -> bool:
    """Give a document the next number, write its files and its row; False where it was made before.

    Files come first. Where the transaction doesn't end, the next attempt gives the same number and writes the same
    bytes, as nobody else had the number meanwhile. Raises: Unavailable.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(DOCUMENTS_LOCK)))
    row = billing_document.c
    if connection.scalar(sa.select(sa.exists().where(row.closing == closing.number, row.place == place))):
        return False
    last = connection.execute(sa.select(row.seq, row.hash).order_by(row.seq.desc()).limit(1)).first()
    seq, previous = (1, GENESIS) if last is None else (last.seq + 1, bytes(last.hash))
    series, year = SERIES[draft.kind], draft.issued_on.year
    used = sa.select(sa.func.max(row.serial)).where(row.series == series, row.year == year)
    serial = (connection.scalar(used) or 0) + 1
    document = replace(draft, number=number_of(draft.kind, year, serial))
    content = canonical(document)
    files = write_files(folder, document, render(document))
    connection.execute(
        billing_document.insert().values(
            seq=seq, number=document.number, series=series, year=year, serial=serial, closing=closing.number,
            place=place, kind=document.kind, month=document.period.month, tenant=document.buyer.id,
            convention=document.convention, settlement=document.settlement, currency=document.currency,
            issued_on=document.issued_on, net_cents=document.net_cents, vat_cents=document.vat_cents,
            gross_cents=document.gross_cents, preceding=document.preceding and document.preceding.number,
            document=content.decode(), files=files, hash=document_link(previous, seq, content, files),
        )
    )  # fmt: skip
    return True


def document_path(folder: Path, month: str, number: str, suffix: str) -> Path:
    """Where a file of a document is, in the data folder."""
    assert is_number(number)
    return folder / "documents" / month / f"{number}.{suffix}"


def write_files(folder: Path, document: BillingDocument, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write a document's files, each whole or not at all; returns suffix to SHA-256. Raises: Unavailable."""
    assert document.number is not None
    try:
        for suffix, content in files.items():
            path = document_path(folder, document.period.month, document.number, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.draft")
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise Unavailable("storage_failed", "Documents can't be written.", retry_after_s=60) from error
    return {suffix: hashlib.sha256(files[suffix]).hexdigest() for suffix in sorted(files)}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_document(connection: sa.Connection, number: str) -> tuple[KeptDocument, BillingDocument]:
    """A document by its number. Raises: NotFound."""
    row = connection.execute(
        sa.select(*_COLUMNS, billing_document.c.document).where(billing_document.c.number == number)
    ).first()
    if row is None:
        raise NotFound("unknown_document", "There is no such document.", field="number")
    *values, content = row
    return KeptDocument(*values), read_canonical(content)


def list_documents(
    connection: sa.Connection, wanted: Filter, *, after: int = 0, limit: int = 100
) -> Sequence[KeptDocument]:
    """Documents after a place in the chain, in its order."""
    columns = billing_document.c
    query = sa.select(*_COLUMNS).where(columns.seq > after).order_by(columns.seq).limit(limit)
    for name in ("tenant", "month", "kind"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(columns[name] == value)
    return [KeptDocument(*row) for row in connection.execute(query)]


def newest_documents(
    connection: sa.Connection, wanted: Filter, *, before: int | None = None, limit: int = 50
) -> Sequence[KeptDocument]:
    """Documents before a place in the chain, the newest first."""
    columns = billing_document.c
    query = sa.select(*_COLUMNS).order_by(columns.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(columns.seq < before)
    for name in ("tenant", "month", "kind"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(columns[name] == value)
    return [KeptDocument(*row) for row in connection.execute(query)]


def credit_notes_of(connection: sa.Connection, number: str) -> Sequence[KeptDocument]:
    """The credit notes that correct an invoice, in the order of the chain."""
    columns = billing_document.c
    query = sa.select(*_COLUMNS).where(columns.preceding == number).order_by(columns.seq)
    return [KeptDocument(*row) for row in connection.execute(query)]


def documents_of(connection: sa.Connection, tenants: Sequence[str], before: str) -> list[BillingDocument]:
    """Documents of administrations that closings of months before one made, in the order of the chain."""
    columns = billing_document.c
    query = sa.select(columns.document).where(columns.tenant.in_(tenants), columns.month < before)
    return [read_canonical(content) for content in connection.scalars(query.order_by(columns.seq))]


def read_file(folder: Path, kept: KeptDocument, suffix: str) -> bytes:
    """A file of a document, as it was made. Raises: NotFound; Unavailable where it is gone or another."""
    if suffix not in kept.files:
        raise NotFound(
            "unknown_file", "The document has no such file.", field="file", expected=", ".join(sorted(kept.files))
        )
    try:
        content = document_path(folder, kept.month, kept.number, suffix).read_bytes()
    except OSError as error:
        raise Unavailable("document_missing", "The file of the document can't be read.") from error
    if hashlib.sha256(content).hexdigest() != kept.files[suffix]:
        raise Unavailable("document_changed", "The file of the document isn't as it was made.")
    return content


def counted(connection: sa.Connection, closing: Closing) -> int:
    """How many documents a closing has made."""
    query: sa.Select[Any] = sa.select(sa.func.count()).where(billing_document.c.closing == closing.number)
    return int(connection.scalar(query) or 0)
