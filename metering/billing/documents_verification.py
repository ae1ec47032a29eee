"""Verification of documents: their chain, their numbers and their files, each against what was recorded."""

import hashlib
from pathlib import Path

import sqlalchemy as sa
from msgspec import Struct

from metering.billing.documents import document_path
from metering.database import transaction
from metering.errors import NotFound
from metering.ledger.verify import Verification
from metering.rules.billing.chain import document_link
from metering.rules.chain import GENESIS
from metering.tables import billing_document

CHUNK_ROWS = 500


def verify_documents(engine: sa.Engine, folder: Path) -> Verification:
    """Recompute the chain of documents and read all of their files; folder: of data."""
    columns = billing_document.c
    result = Verification()
    previous, serials = GENESIS, dict[tuple[str, int], int]()
    with transaction(engine, snapshot=True) as connection:
        rows = connection.execution_options(yield_per=CHUNK_ROWS).execute(
            sa.select(billing_document).order_by(columns.seq)
        )
        for row in rows:
            result.batches += 1
            result.rows += len(row.files)
            serials[row.series, row.year] = expected = serials.get((row.series, row.year), 0) + 1
            if row.serial != expected or row.seq != result.batches:
                result.found("document_number", row.number, f"number {row.serial} where {expected} was due")
            if document_link(previous, row.seq, row.document.encode(), row.files) != bytes(row.hash):
                result.found("document_chain", row.number, "the document isn't as it was made")
            previous = bytes(row.hash)
            _check_files(result, folder, row)
            result.head_seq, result.head_hash = row.seq, previous.hex()
    return result


def _check_files(result: Verification, folder: Path, row: sa.Row[tuple[object, ...]]) -> None:
    for suffix, digest in sorted(row.files.items()):
        try:
            content = document_path(folder, row.month, row.number, suffix).read_bytes()
        except OSError:
            result.found("document_file_missing", f"{row.number}.{suffix}", "the file can't be read")
            continue
        if hashlib.sha256(content).hexdigest() != digest:
            result.found("document_file_changed", f"{row.number}.{suffix}", "the file isn't as it was made")


class FileChecked(Struct, frozen=True):
    """A file of a document. sha256: as recorded; is_intact: None where it can't be read."""

    file: str
    sha256: str
    is_intact: bool | None


class SealChecked(Struct, frozen=True):
    """What was checked of one document, just now. hash: its link of the chain, hexadecimal.

    is_linked: whether the link follows from the one before, the content and the files; is_followed: whether the next
    document's link follows from this one, None where none came after.
    """

    number: str
    seq: int
    hash: str
    is_linked: bool
    is_followed: bool | None
    files: list[FileChecked]

    @property
    def is_intact(self) -> bool:
        """Whether nothing that could be checked differs."""
        return self.is_linked and self.is_followed is not False and all(one.is_intact for one in self.files)


def check_seal(connection: sa.Connection, folder: Path, number: str) -> SealChecked:
    """Recompute the links before and after a document, and read its files. Raises: NotFound.

    connection: on the platform's behalf, as neighbours in the chain can be others'; nothing of them is in the answer.
    """
    columns = billing_document.c
    row = connection.execute(sa.select(billing_document).where(columns.number == number)).first()
    if row is None:
        raise NotFound("unknown_document", "There is no such document.", field="number")
    around = connection.execute(sa.select(billing_document).where(columns.seq.in_([row.seq - 1, row.seq + 1])))
    near = {one.seq: one for one in around}
    before, after, own = near.get(row.seq - 1), near.get(row.seq + 1), bytes(row.hash)
    previous = GENESIS if row.seq == 1 else None if before is None else bytes(before.hash)
    return SealChecked(
        number, row.seq, own.hex(),
        previous is not None and _links(previous, row), None if after is None else _links(own, after),
        [_checked(folder, row, suffix, digest) for suffix, digest in sorted(row.files.items())],
    )  # fmt: skip


def _links(previous: bytes, row: sa.Row[tuple[object, ...]]) -> bool:
    return document_link(previous, row.seq, row.document.encode(), row.files) == bytes(row.hash)


def _checked(folder: Path, row: sa.Row[tuple[object, ...]], suffix: str, digest: str) -> FileChecked:
    try:
        content = document_path(folder, row.month, row.number, suffix).read_bytes()
    except OSError:
        return FileChecked(suffix, digest, None)
    return FileChecked(suffix, digest, hashlib.sha256(content).hexdigest() == digest)
