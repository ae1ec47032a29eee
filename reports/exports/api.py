"""Exports over HTTP: a file that is made while one waits, up to so many rows."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import anyio
from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.params import Parameter
from litestar.response import Stream

from metering.identity import Principal
from reports.asked import CUT, UsageCut
from reports.exports.making import FOCUS_VERSIONS, FORMS, KINDS, Made, Sources, make, parse_export

ROWS_MAX = 200_000
"""Of an export that is waited for; `jauge export` has no such limit."""

CHUNK_BYTES = 256 * 1024
OCTETS = "application/octet-stream"


@get(
    "/v1/exports/now",
    summary="Usage, charges or entries as a file",
    tags=["exports"],
    media_type=OCTETS,
    dependencies=CUT,
    sync_to_thread=True,
)
def get_export(  # noqa: PLR0913 - the parameters of the route, for its OpenAPI document
    request: Request[Any, Any, Any],
    cut: NamedDependency[UsageCut],
    kind: Annotated[str, Parameter(description=f"{', '.join(KINDS)}.", pattern=f"^({'|'.join(KINDS)})$")] = "usage",
    format: Annotated[  # noqa: A002
        str, Parameter(description=f"{', '.join(FORMS)}.", pattern=f"^({'|'.join(FORMS)})$")
    ] = "csv",
    language: Annotated[
        str, Parameter(description="fr or en: headings, separators, decimal marks.", pattern="^(fr|en)$")
    ] = "en",
    month: Annotated[str | None, Parameter(description="Of focus and accounting: a closed month, as 2026-10.")] = None,
    focus_version: Annotated[
        str, Parameter(description="1.2 or 1.4.", pattern=f"^({'|'.join(FOCUS_VERSIONS).replace('.', '[.]')})$")
    ] = "1.2",
    start: Annotated[str | None, Parameter(description="Of usage: first instant, a date or RFC 3339.")] = None,
    end: Annotated[str | None, Parameter(description="Of usage: exclusive end, a date or RFC 3339.")] = None,
    amounts: Annotated[bool, Parameter(description="Of usage: with the amounts of whole months.")] = False,
) -> Stream:
    given = {
        **cut.params(), "kind": kind, "format": format, "language": language, "month": month,
        "focus_version": focus_version, "start": start, "end": end, "amounts": "true" if amounts else None,
    }  # fmt: skip
    reader: Principal = request.scope["state"]["principal"]
    sources: Sources = request.app.state.export_sources
    export = parse_export(given, reader)
    folder = Path(mkdtemp(prefix="jauge-export-"))
    try:
        made = make(sources, export, reader, folder, rows_max=ROWS_MAX)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Stream(_sent(made, folder), media_type=OCTETS, headers=_headers(made))


def _headers(made: Made) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="{made.path.name}"',
        "Content-Length": str(made.size),
        "Repr-Digest": made.digest(),
        "Jauge-Ledger-Batch": str(made.told["ledger_batch"]),
        "Jauge-Ledger-Hash": str(made.told["ledger_hash"]),
        "Jauge-Content-SHA256": str(made.told["content_sha256"]),
    }


async def _sent(made: Made, folder: Path) -> AsyncIterator[bytes]:
    """A file piece by piece; it is gone when it is sent, or nobody takes it any longer."""
    try:
        async with await anyio.open_file(made.path, "rb") as file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def exports_router(**options: Any) -> Router:
    """Routes of exports; options are Litestar's for a router (guards, security)."""
    return Router("/", route_handlers=[get_export], **options)
