"""Deposits of invoices at Chorus Pro: the files that it takes, and a receipt of each, so that none is deposited twice.

A receipt stands beside the document's files. It is written before the deposit and completed after it: where it is
there without the number of a flow, nobody knows whether Chorus Pro has the invoice, and a human looks first.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from metering.billing.chorus import ChorusPro, DepositUnknown, Flow, Syntax
from metering.errors import Conflict, JaugeError, Unprocessable
from metering.rules.billing.documents import BillingDocument

Suffix = Literal["pdf", "ubl.xml"]
"""Of the files of a document that Chorus Pro takes."""

NAME_CHARACTERS_MAX = 50
SYNTAXES: Mapping[str, Syntax] = {"pdf": "IN_DP_E2_CII_FACTURX", "ubl.xml": "IN_DP_E1_UBL_INVOICE"}
"""What Chorus Pro calls them."""


class Receipt(msgspec.Struct, frozen=True):
    """A deposit: of which bytes, and what Chorus Pro calls it; flow null: it isn't known whether it was taken."""

    number: str
    file: str
    sha256: str
    flow: str | None = None
    deposited_on: str | None = None


class Deposit(NamedTuple):
    """A file as it goes to Chorus Pro."""

    name: str
    content: bytes
    syntax: Syntax


def prepared(document: BillingDocument, files: Mapping[str, bytes], suffix: Suffix) -> Deposit:
    """What is deposited of a document. Raises: Unprocessable for one that isn't owed or has no number."""
    if document.kind == "statement" or document.number is None:
        raise Unprocessable("not_an_invoice", "Only invoices and credit notes are deposited.", field="number")
    if document.buyer.siret is None:
        raise Unprocessable("no_siret", "Chorus Pro knows administrations by their SIRET.", field="siret")
    return Deposit(file_name(document.number, suffix), files[suffix], SYNTAXES[suffix])


def file_name(number: str, suffix: str) -> str:
    """A document's name as a file. Numbers have 35 characters at most."""
    name = f"{number.replace('/', '_')}.{suffix.rpartition('.')[2]}"
    assert len(name) <= NAME_CHARACTERS_MAX
    return name


def package(documents: Sequence[tuple[BillingDocument, bytes]], suffix: Suffix) -> bytes:
    """Files of documents of one syntax as a tar.gz, by number; the same documents give the same bytes."""
    file = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for document, content in sorted(documents, key=lambda one: one[0].number or ""):
            assert document.number is not None
            entry = tarfile.TarInfo(file_name(document.number, suffix))
            entry.size = len(content)
            entry.mtime = int(datetime.combine(document.issued_on, time(), UTC).timestamp())
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def deposit_once(chorus: ChorusPro, number: str, one: Deposit, receipt_path: Path, *, again: bool = False) -> Receipt:
    """Deposit a document that isn't deposited, and keep the receipt; of one that is, the receipt.

    again: a human has looked, and Chorus Pro has no deposit whose answer was lost. Raises: Conflict, JaugeError.
    """
    sent = Receipt(number, one.name, hashlib.sha256(one.content).hexdigest())
    kept = read_receipt(receipt_path)
    if kept is not None and kept.flow is not None:
        return kept
    if kept is not None and not again:
        raise Conflict("deposit_unknown", "An earlier deposit may have been taken.", expected="a look, then --again")
    _write(receipt_path, sent, is_new=kept is None)
    try:
        flow = chorus.deposit(one.name, one.content, one.syntax)
    except DepositUnknown:
        raise
    except JaugeError:
        receipt_path.unlink()  # nothing was taken
        raise
    receipt = msgspec.structs.replace(sent, flow=flow.number, deposited_on=flow.deposited_on)
    _write(receipt_path, receipt, is_new=False)
    return receipt


def read_receipt(path: Path) -> Receipt | None:
    """The receipt of a deposit, where there is one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Receipt)
    except FileNotFoundError:
        return None


def deposit_state(chorus: ChorusPro, receipt: Receipt) -> Flow | None:
    """What became of a deposit; None where it isn't known whether it was taken."""
    return None if receipt.flow is None else chorus.status(receipt.flow)


def _write(path: Path, receipt: Receipt, *, is_new: bool) -> None:
    """Whole or not at all. is_new: two at once can't both begin. Raises: Conflict."""
    content = msgspec.json.encode(receipt)
    if is_new:
        try:
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError as error:
            raise Conflict("deposit_running", "Somebody else deposits this document.") from error
        return
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
