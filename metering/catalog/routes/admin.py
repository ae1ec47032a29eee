"""What the platform's staff declares: the same routes for every kind of document, and the catalogue as one file."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, post, put
from litestar.concurrency import sync_to_thread
from litestar.params import JSONBody, QueryParameter

from metering.catalog.apply import Change, apply, compare, export, read_file
from metering.catalog.kinds import KINDS, Kind, check_references, load, remove
from metering.catalog.kinds import put as put_document
from metering.catalog.routes.acting import AfterId, PageLimit, acting
from metering.database import transaction
from metering.web import TOKEN_SECURITY, caller_of, require

YAML = "application/yaml"


class ChangeShown(msgspec.Struct):
    """A document that a file changes; `fields` maps what differs to [before, after]."""

    kind: str
    key: tuple[str, ...]
    is_new: bool
    fields: dict[str, tuple[Any, Any]]


class FileAnswer(msgspec.Struct):
    """What a catalogue file changes, and whether that is written."""

    applied: bool
    changes: list[ChangeShown]


def shown(changes: list[Change]) -> list[ChangeShown]:
    """Changes as an answer has them."""
    return [ChangeShown(one.kind, one.key, one.is_new, dict(one.fields)) for one in changes]


def _documents_router(kind: Kind) -> Router:
    """Routes of a kind: list, write, take away."""
    document = kind.document
    page = msgspec.defstruct(
        f"{document.__name__}Page",
        [("items", list[document]), ("next_after", str | None)],  # type: ignore[valid-type]
    )

    @get(summary=f"List {kind.name}", sync_to_thread=True, operation_id=f"list_{kind.name}")
    def list_documents(
        request: Request[Any, Any, Any],
        after: AfterId = "",
        limit: PageLimit = 100,
    ) -> page:  # type: ignore[valid-type]
        with acting(request) as connection:
            found = load(connection, kind)
        # Ordered by the joined key itself: the database's own order of texts is another one.
        keyed = sorted(("/".join(key), one) for key, one in found.items())
        following = [(key, one) for key, one in keyed if key > after]
        items = [one for _key, one in following[:limit]]
        return page(items, following[limit - 1][0] if len(following) > limit else None)

    @put(summary=f"Write one of {kind.name}", sync_to_thread=True, operation_id=f"put_{kind.name}")
    def put_one(request: Request[Any, Any, Any], data: JSONBody[document]) -> document:  # type: ignore[valid-type]
        with acting(request) as connection:
            put_document(connection, kind, data)
            check_references(connection)
        return data

    @delete(summary=f"Take one of {kind.name} away", sync_to_thread=True, operation_id=f"delete_{kind.name}")
    def delete_one(
        request: Request[Any, Any, Any],
        key: Annotated[str, QueryParameter(max_length=400, description=f"{'/'.join(kind.key)} of the document.")],
    ) -> None:
        with acting(request) as connection:
            remove(connection, kind, (key,))
            check_references(connection)

    handlers = [list_documents, put_one, *([delete_one] if kind.is_removable else [])]
    return Router(f"/v1/admin/{kind.name}", route_handlers=handlers)


@get("/v1/admin/catalog", summary="The catalogue as a file (YAML)", media_type=YAML, sync_to_thread=True)
def get_catalog(request: Request[Any, Any, Any]) -> Response[Any]:
    with transaction(request.app.state.engine, snapshot=True, actor=caller_of(request).actor) as connection:
        return Response(export(connection), media_type=YAML)


@post(
    "/v1/admin/catalog",
    summary="Apply a catalogue file (YAML)",
    description="All of it or nothing. With `dry_run` the answer says what would change, and nothing does.",
    status_code=200,
)
async def post_catalog(
    request: Request[Any, Any, Any],
    dry_run: Annotated[bool, QueryParameter(description="Compare only.")] = False,
) -> FileAnswer:
    return await sync_to_thread(_take_file, request, await request.body(), dry_run)


def _take_file(request: Request[Any, Any, Any], body: bytes, dry_run: bool) -> FileAnswer:
    wanted = read_file(body)
    with acting(request) as connection:
        changes = compare(connection, wanted) if dry_run else apply(connection, wanted)
    return FileAnswer(not dry_run, shown(changes))


admin_router = Router(
    "/",
    route_handlers=[get_catalog, post_catalog, *map(_documents_router, KINDS.values())],
    guards=[require("operator")],
    security=TOKEN_SECURITY,
    tags=["catalogue"],
)
