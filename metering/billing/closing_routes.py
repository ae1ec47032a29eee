"""Months and documents over HTTP: operators close months; documents are read by them and by managers of their own."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from metering.billing.closing import Closer
from metering.billing.closing_answers import (
    ClosingShown,
    DocumentShown,
    shown_document,
    shown_documents,
    shown_month,
)
from metering.billing.documents import Filter, find_document, list_documents, read_file
from metering.billing.documents_verification import SealChecked, check_seal
from metering.billing.periods import months_shown
from metering.billing.rating import read_month
from metering.catalog.documents import Paragraph
from metering.catalog.routes.acting import AfterId, Page, PageLimit, acting, clock
from metering.database import transaction
from metering.errors import BadRequest
from metering.rules.billing.documents import DocumentKind
from metering.web import TOKEN_SECURITY, caller_of, caller_within, require

MEDIA_TYPES = {
    "pdf": "application/pdf",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xml": "application/xml",
    "ubl.xml": "application/xml",
}


class DocumentPage(Page[DocumentShown]):
    """Documents in the order of their chain."""


class MonthPage(Page[ClosingShown]):
    """Months, newest first."""


class Finalising(msgspec.Struct, forbid_unknown_fields=True):
    """zero_unpriced: why usage without a price costs nothing; without it, such usage stands in the way."""

    zero_unpriced: Paragraph | None = None


@get("/v1/documents", summary="List statements, invoices and credit notes", sync_to_thread=True,
     guards=[require("operator", "manager")])  # fmt: skip
def get_documents(
    request: Request[Any, Any, Any],
    tenant: Annotated[str | None, QueryParameter(min_length=1, max_length=64)] = None,
    month: Annotated[str | None, QueryParameter(description="The month that was closed, as 2026-10.")] = None,
    kind: Annotated[DocumentKind | None, QueryParameter(description="Only these.")] = None,
    after: AfterId = "",
    limit: PageLimit = 100,
) -> DocumentPage:
    asked = tenant or caller_of(request).tenant
    if asked is not None:
        caller_within(request, asked)
    if month is not None:
        read_month(month)
    with acting(request) as connection:
        found = list_documents(connection, Filter(asked, month, kind), after=_place(after), limit=limit)
    return DocumentPage(shown_documents(found), str(found[-1].seq) if len(found) == limit else None)


def _place(after: str) -> int:
    if after and not (after.isascii() and after.isdecimal() and len(after) <= 18):
        raise BadRequest("invalid_page", "Not a page.", field="after", expected="next_after of the page before")
    return int(after or 0)


@get("/v1/documents/{document:str}", summary="A document", sync_to_thread=True,
     guards=[require("operator", "manager")])  # fmt: skip
def get_document(request: Request[Any, Any, Any], document: FromPath[str]) -> DocumentShown:
    with acting(request) as connection:
        return shown_document(find_document(connection, document)[0])


@get("/v1/documents/{document:str}/files/{file:str}", summary="A file of a document, as it was made",
     sync_to_thread=True, guards=[require("operator", "manager")], media_type="application/octet-stream")  # fmt: skip
def get_document_file(request: Request[Any, Any, Any], document: FromPath[str], file: FromPath[str]) -> Response[bytes]:
    """`file` is one of the document's `files`: pdf, json, csv, xml (CII, Factur-X) or ubl.xml."""
    with acting(request) as connection:
        kept, _ = find_document(connection, document)
    content = read_file(request.app.state.settings.data, kept, file)
    name = f"{kept.number}.{file}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=MEDIA_TYPES.get(file, "application/octet-stream"), headers=headers)


@get("/v1/documents/{document:str}/seal", summary="Check a document's place in the chain, and its files",
     sync_to_thread=True, guards=[require("operator", "manager")])  # fmt: skip
def get_seal(request: Request[Any, Any, Any], document: FromPath[str]) -> SealChecked:
    return checked_seal(request, document)


def checked_seal(request: Request[Any, Any, Any], number: str) -> SealChecked:
    """What was checked of a document that the caller may read. Raises: NotFound."""
    state = request.app.state
    with acting(request) as connection:
        find_document(connection, number)
    # Its neighbours in the chain can be others': they are read on the platform's behalf, and stay here.
    with transaction(state.engine, snapshot=True) as connection:
        return check_seal(connection, state.settings.data, number)


@get("/v1/admin/periods", summary="Months, as far as they are closed", sync_to_thread=True)
def get_periods(request: Request[Any, Any, Any], after: AfterId = "", limit: PageLimit = 100) -> MonthPage:
    if after:
        read_month(after)
    with acting(request) as connection:
        months = months_shown(connection, clock(), limit, after or None)
        items = [shown_month(connection, month) for month in months]
    return MonthPage(items, months[-1] if len(months) == limit else None)


@get("/v1/admin/periods/{month:str}", summary="A month, and the review of its latest closing", sync_to_thread=True)
def get_period(request: Request[Any, Any, Any], month: FromPath[str]) -> ClosingShown:
    read_month(month)
    return _month(request, month)


def _month(request: Request[Any, Any, Any], month: str) -> ClosingShown:
    with acting(request) as connection:
        return shown_month(connection, month)


@post("/v1/admin/periods/{month:str}/draft", summary="Look at a month as it stands", status_code=200,
      sync_to_thread=True)  # fmt: skip
def post_draft(request: Request[Any, Any, Any], month: FromPath[str]) -> ClosingShown:
    closer: Closer = request.app.state.closer
    closer.draft(month, author=caller_of(request).actor.author, now=clock())
    return _month(request, month)


@post("/v1/admin/periods/{month:str}/final", summary="Seal a month and write its documents, for good",
      description="Safe to repeat; goes on where it stopped. It takes as long as its documents do, unless it isn't "
                  "waited for: then the worker goes on within a minute, and the month says how far it is.",
      status_code=200, sync_to_thread=True)  # fmt: skip
def post_final(
    request: Request[Any, Any, Any],
    month: FromPath[str],
    data: JSONBody[Finalising],
    wait: Annotated[bool, QueryParameter(description="false: answer once the closing is decided.")] = True,
) -> ClosingShown:
    closer: Closer = request.app.state.closer
    close = closer.finalise if wait else closer.begin_final
    close(month, author=caller_of(request).actor.author, now=clock(), zero_reason=data.zero_unpriced)
    return _month(request, month)


closing_router = Router(
    "/",
    route_handlers=[
        get_documents, get_document, get_document_file, get_seal,
        Router("/", route_handlers=[get_periods, get_period, post_draft, post_final], guards=[require("operator")]),
    ],
    security=TOKEN_SECURITY,
    tags=["billing"],
)  # fmt: skip
