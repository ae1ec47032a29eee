"""Making an export: rows are read in one transaction, then written in their form."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import sqlalchemy as sa

from metering.database import transaction
from metering.errors import Forbidden, NotFound, Unprocessable
from metering.identity import Principal
from metering.rules.billing.documents import BillingDocument
from metering.tables import billing_document, ledger_batch, month_closed, month_closing
from reports.carbon_statement import month_of
from reports.exports.accounting import ACCOUNTING_COLUMNS, Accounts, accounting_rows
from reports.exports.focus import FocusVersion, focus_columns, focus_rows
from reports.exports.forms import write
from reports.exports.sheets import About, Form, Sheet
from reports.exports.spooling import Told, spool
from reports.exports.usage_sheet import AmountsOf, UsageSheetQuestion, check_amounts, usage_sheet
from reports.usage import for_reader, parse_question
from reports.wording import LANGUAGES, Language

ExportKind = Literal["usage", "focus", "accounting"]
KINDS: tuple[ExportKind, ...] = get_args(ExportKind)
FORMS: tuple[Form, ...] = get_args(Form)
FOCUS_VERSIONS: tuple[FocusVersion, ...] = get_args(FocusVersion)

DOCUMENTS_AT_A_TIME = 50


@dataclass(frozen=True, slots=True)
class Export:
    """What is asked for. usage: of that kind; the others are of a month's documents, of one administration or all."""

    kind: ExportKind
    form: Form
    language: Language
    usage: UsageSheetQuestion | None = None
    month: str = ""
    tenant: str | None = None
    focus_version: FocusVersion = "1.2"


@dataclass(frozen=True, slots=True)
class Sources:
    """What figures are read from, and with: the database, what rates a month, the accounts of the seller's books."""

    engine: sa.Engine
    amounts_of: AmountsOf
    accounts: Accounts


@dataclass(frozen=True, slots=True)
class Made:
    """A file, and what it is of: `told` stands in it, or beside it."""

    path: Path
    size: int
    sha256: str
    told: Mapping[str, Any]

    def manifest(self) -> bytes:
        """What stands beside the file: what it is of, and its own hash. JSON."""
        whole = {"file": self.path.name, "bytes": self.size, "sha256": self.sha256, **self.told}
        return msgspec.json.format(msgspec.json.encode(whole)) + b"\n"

    def digest(self) -> str:
        """The file's hash as HTTP tells it (RFC 9530)."""
        return f"sha-256=:{base64.b64encode(bytes.fromhex(self.sha256)).decode()}:"


def parse_export(params: Mapping[str, str | Sequence[str] | None], reader: Principal) -> Export:
    """What a reader asks for, from text, within what they may see. Raises: Unprocessable, Forbidden."""
    kind = _one_of("kind", params.get("kind") or "usage", KINDS)
    form = _one_of("format", params.get("format") or "csv", FORMS)
    language = _one_of("language", params.get("language") or "en", LANGUAGES)
    if kind == "usage":
        usage = for_reader(parse_question(params), reader)
        with_amounts = params.get("amounts") == "true"
        if with_amounts:
            _not_for_members(reader)
            check_amounts(usage)
        return Export(kind, form, language, UsageSheetQuestion(usage, with_amounts))
    _not_for_members(reader)
    tenants = params.get("tenant")
    named = [tenants] if isinstance(tenants, str) else list(tenants or ())
    if len(named) > 1:
        raise Unprocessable("repeated_parameter", "Given more than once.", field="tenant", expected="one value")
    tenant = named[0] if named else reader.tenant
    if reader.tenant not in {None, tenant}:
        raise Forbidden("not_yours", "That isn't yours to read.", field="tenant", expected="your own")
    month = str(params.get("month") or "")
    month_of(month)
    version = _one_of("focus_version", params.get("focus_version") or "1.2", FOCUS_VERSIONS)
    return Export(kind, form, language, None, month, tenant, version)


def make(
    sources: Sources, export: Export, reader: Principal, folder: Path, told: Told | None = None,
    rows_max: int | None = None,
) -> Made:  # fmt: skip
    """Make an export as a file in a folder, which needs room for its rows twice.

    Raises: NotFound, Unprocessable; TooLarge beyond `rows_max`.
    """
    rows = folder / "rows"
    if export.usage is None:
        with transaction(sources.engine) as connection:
            _check_closed(connection, export.month)
    with transaction(sources.engine, snapshot=True, actor=reader.actor) as connection:
        sheet, closing = _sheet(connection, sources, export)
        spooled = spool(sheet, rows, told, rows_max)
    with transaction(sources.engine) as connection:  # closings and hashes of the ledger are the platform's
        about = _told_of_ledger(connection, spooled.about, closing)
    spooled = replace(spooled, about=about)
    written = write(spooled, export.form, export.language, folder / about.name(export.form), told)
    rows.unlink()
    return Made(written.path, written.size, written.sha256, spooled.told())


def read_documents(connection: sa.Connection, month: str, tenant: str | None) -> Iterator[BillingDocument]:
    """Final documents of the close of a month, in the order of their chain; a few are in memory at a time."""
    query = sa.select(billing_document.c.document).where(*_chosen(month, tenant)).order_by(billing_document.c.seq)
    decoder = msgspec.json.Decoder(BillingDocument)
    for text in connection.execute(query, execution_options={"yield_per": DOCUMENTS_AT_A_TIME}).scalars():
        yield decoder.decode(text)


def _sheet(connection: sa.Connection, sources: Sources, export: Export) -> tuple[Sheet, int | None]:
    """The sheet, and the closing whose documents are in it."""
    if export.usage is not None:
        return usage_sheet(connection, export.usage, sources.amounts_of), None
    closing = connection.scalar(
        sa.select(sa.func.max(billing_document.c.closing)).where(*_chosen(export.month, export.tenant))
    )
    if closing is None:
        raise NotFound("no_documents", "The month has no final documents.", field="month", expected="a closed month")
    documents = read_documents(connection, export.month, export.tenant)
    asked: dict[str, Any] = {"tenant": export.tenant} if export.tenant else {}
    start, end = month_of(export.month)
    if export.kind == "accounting":
        about = About("accounting", start, end, 0, "", asked=asked)
        return Sheet(about, ACCOUNTING_COLUMNS, accounting_rows(documents, sources.accounts)), closing
    version = export.focus_version
    about = About(f"focus-{version}", start, end, 0, "", asked=asked | {"focus_version": version})
    return Sheet(about, focus_columns(version), focus_rows(documents, version)), closing


def _check_closed(connection: sa.Connection, month: str) -> None:
    """Raises: NotFound while a month hasn't all of its documents."""
    if not connection.scalar(sa.select(sa.exists().where(month_closed.c.month == month))):
        raise NotFound("no_documents", "The month has no final documents.", field="month", expected="a closed month")


def _chosen(month: str, tenant: str | None) -> list[sa.ColumnElement[bool]]:
    of_tenant = [] if tenant is None else [billing_document.c.tenant == tenant]
    return [billing_document.c.month == month, *of_tenant]


def _told_of_ledger(connection: sa.Connection, about: About, closing: int | None) -> About:
    """What a sheet is of, with the batch of its closing and that batch's hash."""
    batch = about.ledger_batch
    if closing is not None:
        batch = connection.scalar(sa.select(month_closing.c.ledger_batch).where(month_closing.c.number == closing)) or 0
    found = connection.scalar(sa.select(ledger_batch.c.hash).where(ledger_batch.c.seq == batch))
    return replace(about, ledger_batch=batch, ledger_hash="" if found is None else bytes(found).hex())


def _not_for_members(reader: Principal) -> None:
    if reader.role == "member":
        raise Forbidden("wrong_role", "The token has another role.", expected="operator or manager")


def _one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    if value not in known:
        raise Unprocessable("unknown_value", "Not a known value.", field=name, expected=", ".join(known))
    return value
