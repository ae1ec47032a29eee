"""Projects and API keys over HTTP."""

from typing import Annotated, Any, Literal

from litestar import Request, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, UnsetType

from metering.catalog import issued_keys, projects
from metering.catalog.documents import Document, Id, Instant, Line, Project
from metering.catalog.imported_keys import Imported, ImportedKey, import_keys
from metering.catalog.issued_keys import Key, KeyAsked, NewKey
from metering.catalog.routes.acting import AfterId, Page, PageLimit, acting, clock, page_of, stated
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_within, require

KEYS_IMPORTED_MAX = 10_000
"""Keys of one call."""
IMPORT_BYTES_MAX = 16 * 1024 * 1024


class ProjectBody(Document, frozen=True, kw_only=True):
    """A project to open."""

    id: Id
    name: Line


class ProjectChanges(Document, frozen=True, kw_only=True):
    """What to change of a project; a closed one takes no new keys."""

    name: Line | UnsetType = UNSET
    status: Literal["active", "closed"] | UnsetType = UNSET


class ProjectPage(Page[Project]):
    """Projects in the order of ids, and where the next page begins."""


class KeyBody(Document, frozen=True, kw_only=True):
    """A key to make: one's own, or a program's. Unless stated otherwise it ends after a year; two at most."""

    name: Line
    project: Id | None = None
    expires_at: Instant | None = None
    for_program: bool = False


class KeyChanges(Document, frozen=True, kw_only=True):
    """What to change of a key."""

    name: Line | UnsetType = UNSET
    expires_at: Instant | UnsetType = UNSET


class KeyPage(Page[Key]):
    """Keys in the order of ids, and where the next page begins."""


class ImportBody(Document, frozen=True, kw_only=True):
    """Keys that a gateway has issued."""

    keys: Annotated[list[ImportedKey], Meta(max_length=KEYS_IMPORTED_MAX)]


@get("/v1/tenants/{tenant:str}/projects", summary="Projects of an administration", sync_to_thread=True)
def get_projects(
    request: Request[Any, Any, Any], tenant: FromPath[str], after: AfterId = "", limit: PageLimit = 100
) -> ProjectPage:  # fmt: skip
    caller_within(request, tenant)
    with acting(request) as connection:
        items = projects.list_projects(connection, tenant, after=after, limit=limit)
    return page_of(ProjectPage, items, limit)


@post("/v1/tenants/{tenant:str}/projects", summary="Open a project", sync_to_thread=True)
def post_project(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[ProjectBody]) -> Project:
    caller_within(request, tenant)
    with acting(request) as connection:
        return projects.add_project(connection, Project(tenant=tenant, id=data.id, name=data.name))


@patch("/v1/tenants/{tenant:str}/projects/{project:str}", summary="Rename or close a project", sync_to_thread=True)
def patch_project(
    request: Request[Any, Any, Any], tenant: FromPath[str], project: FromPath[str], data: JSONBody[ProjectChanges]
) -> Project:  # fmt: skip
    caller_within(request, tenant)
    with acting(request) as connection:
        return projects.change_project(connection, tenant, project, stated(data))


@get(
    "/v1/tenants/{tenant:str}/keys",
    summary="API keys",
    description="A member's own; all of the administration's for a manager. Never with a secret.",
    sync_to_thread=True,
)
def get_keys(
    request: Request[Any, Any, Any], tenant: FromPath[str], after: AfterId = "", limit: PageLimit = 100
) -> KeyPage:  # fmt: skip
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        items = issued_keys.list_keys(connection, tenant, caller, now=clock(), after=after, limit=limit)
    return page_of(KeyPage, items, limit)


@post(
    "/v1/tenants/{tenant:str}/keys",
    summary="Make an API key; its secret is shown once",
    description=(
        "The terms in force must be accepted. A manager may make keys of programs, which belong to nobody. Names of "
        "keys stay in the record of changes: a thing's name, not a person's."
    ),
    sync_to_thread=True,
)
def post_key(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[KeyBody]) -> NewKey:
    caller = caller_within(request, tenant)
    asked = KeyAsked(data.name, data.project, data.expires_at, data.for_program)
    with acting(request) as connection:
        return issued_keys.create_key(connection, tenant, caller, asked, now=clock())


@patch("/v1/tenants/{tenant:str}/keys/{key:str}", summary="Rename a key or move its end", sync_to_thread=True)
def patch_key(
    request: Request[Any, Any, Any], tenant: FromPath[str], key: FromPath[str], data: JSONBody[KeyChanges]
) -> Key:  # fmt: skip
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        return issued_keys.change_key(connection, tenant, caller, key, stated(data), now=clock())


@delete("/v1/tenants/{tenant:str}/keys/{key:str}", summary="Revoke a key for good", sync_to_thread=True)
def delete_key(request: Request[Any, Any, Any], tenant: FromPath[str], key: FromPath[str]) -> None:
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        issued_keys.revoke_key(connection, tenant, caller, key, now=clock())


@post(
    "/v1/admin/tenants/{tenant:str}/keys",
    summary="Take over keys that a gateway has issued",
    description="All or none; known ones stay as they are. Only digests of secrets are taken.",
    request_max_body_size=IMPORT_BYTES_MAX,
    status_code=200,
    sync_to_thread=True,
)
def post_imported_keys(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[ImportBody]) -> Imported:
    caller_within(request, tenant)
    with acting(request) as connection:
        return import_keys(connection, tenant, data.keys)


keys_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[get_projects, get_keys, patch_key, delete_key],
            guards=[require("operator", "manager", "member")],
        ),
        Router("/", route_handlers=[post_key], guards=[require("manager", "member")]),
        Router("/", route_handlers=[post_project, patch_project], guards=[require("operator", "manager")]),
        Router("/", route_handlers=[post_imported_keys], guards=[require("operator")]),
    ],
    security=TOKEN_SECURITY,
    request_max_body_size=BODY_BYTES_MAX,
    tags=["keys"],
)
