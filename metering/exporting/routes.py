"""Exports over HTTP that nobody waits for: asked for, looked after, fetched."""

import shutil
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.datastructures.headers import ETag
from litestar.params import FromPath, HeaderParameter, JSONBody
from litestar.response import File, Stream

from metering.catalog.routes.acting import AfterId, Page, PageLimit, acting, clock, page_of
from metering.errors import Gone
from metering.exporting.asking import (
    ExportAsked,
    Job,
    JobState,
    ask_export,
    cancel_export,
    find_export,
    find_file,
    list_exports,
)
from metering.exporting.ranges import bytes_of, read_range
from metering.exporting.working import file_of, folder_of
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, require
from reports.exports.forms import MEDIA_TYPES

OCTETS = "application/octet-stream"


class ExportShown(msgspec.Struct):
    """An export that was asked for.

    as_of: the last batch of the ledger that counts. rows_total is null while rows are still being read. error: code of
    the last error. manifest: what the file is, and of; null until it is ready. expires_at: end of its being there.
    """

    id: str
    state: JobState
    tenant: str | None
    asked: ExportAsked
    as_of: int
    rows_done: int
    rows_total: int | None
    error: str | None
    manifest: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> "ExportShown":
        """A job as it is shown."""
        return msgspec.convert(job, cls, from_attributes=True)


class ExportPage(Page[ExportShown]):
    """Exports, newest first."""


@post("/v1/exports", summary="Ask for a file of usage, charges or entries",
      description="The worker makes it, as of the ledger as it stands now; `Location` is where to look for it.",
      status_code=202, sync_to_thread=True)  # fmt: skip
def post_export(
    request: Request[Any, Any, Any],
    data: JSONBody[ExportAsked],
    repeat_key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key", min_length=1, max_length=200, pattern="^[!-~]+$",
            description="The same key with the same question again is the same export.",
        ),
    ] = None,
) -> Response[ExportShown]:  # fmt: skip
    reader, most = caller_of(request), request.app.state.settings.exports_waiting_max
    with acting(request) as connection:
        job = ask_export(connection, data, reader, repeat_key=repeat_key, waiting_max=most, now=clock())
    return Response(ExportShown.of(job), status_code=202, headers={"Location": f"/v1/exports/{job.id}"})


@get("/v1/exports", summary="Exports that were asked for", sync_to_thread=True)
def get_exports(request: Request[Any, Any, Any], after: AfterId = "", limit: PageLimit = 100) -> ExportPage:
    with acting(request) as connection:
        items = list_exports(connection, caller_of(request), after=after, limit=limit)
    return page_of(ExportPage, [ExportShown.of(one) for one in items], limit)


@get("/v1/exports/{export:str}", summary="An export: how far it is, and what it is of", sync_to_thread=True)
def get_export_job(request: Request[Any, Any, Any], export: FromPath[str]) -> ExportShown:
    with acting(request) as connection:
        return ExportShown.of(find_export(connection, caller_of(request), export))


@get("/v1/exports/{export:str}/file", summary="The file of an export",
     description="With `Range`, a part of it: 206, or 416 where it has no such bytes.", media_type=OCTETS,
     sync_to_thread=True)  # fmt: skip
def get_export_file(
    request: Request[Any, Any, Any],
    export: FromPath[str],
    asked: Annotated[str | None, HeaderParameter(name="Range", description="As `bytes=1000-`: one part.")] = None,
    only_if: Annotated[
        str | None, HeaderParameter(name="If-Range", description="The `ETag` of what is had; all of another file.")
    ] = None,
) -> File | Stream:
    with acting(request) as connection:
        job = find_file(connection, caller_of(request), export)
    manifest = job.manifest
    assert manifest is not None
    path = file_of(request.app.state.settings.data, job)
    if not path.is_file():
        raise Gone("export_gone", "The file is no longer there.", field="export", expected="an export that is ready")
    etag = f'"{manifest["sha256"]}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Jauge-Content-SHA256": manifest["content_sha256"],
        "X-Content-Type-Options": "nosniff",
    }
    size = path.stat().st_size
    part = read_range(asked, size) if only_if in {None, etag} else None
    if part is not None:
        headers |= {
            "Content-Type": MEDIA_TYPES[job.asked["format"]],
            "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}",
            "Content-Length": str(len(part)),
            "ETag": etag,
        }
        return Stream(bytes_of(path, part), status_code=206, headers=headers)
    return File(
        path,
        filename=manifest["file"],
        media_type=MEDIA_TYPES[job.asked["format"]].partition(";")[0],  # which adds the character set
        etag=ETag(value=manifest["sha256"]),
        headers=headers,
    )


@delete("/v1/exports/{export:str}", summary="Call an export off, or take its file away", sync_to_thread=True)
def delete_export(request: Request[Any, Any, Any], export: FromPath[str]) -> None:
    with acting(request) as connection:
        job = cancel_export(connection, caller_of(request), export, now=clock())
    shutil.rmtree(folder_of(request.app.state.settings.data, job.id), ignore_errors=True)


exporting_router = Router(
    "/",
    route_handlers=[post_export, get_exports, get_export_job, get_export_file, delete_export],
    guards=[require("operator", "manager", "member")],
    request_max_body_size=BODY_BYTES_MAX,
    security=TOKEN_SECURITY,
    tags=["exports"],
)
