"""Charts for other sites' pages: a link that shows one chart of one administration for a short time, and nothing else.

A link holds what it shows, since when and until when, and the HMAC of all: no link is stored, and no letter of it can
be changed. An administration can end all of its links before their time: those made until then show nothing.
"""

import base64
import binascii
import hmac
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from litestar import Request, Router, delete, post
from litestar.datastructures import State
from litestar.params import JSONBody, Parameter
from msgspec import Meta
from sqlalchemy.dialects.postgresql import insert

from metering.catalog.routes.acting import clock
from metering.catalog.snapshot import Snapshot
from metering.database import transaction
from metering.errors import Forbidden, Gone, NotFound, Unprocessable
from metering.identity import Principal
from metering.outbox.secrets import MasterKey
from metering.tables import embed_ending
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, caller_within, require
from reports.embed_pages import Embed
from reports.selection import PAGE_QUANTITIES

MINUTES_MAX = 24 * 60
PURPOSE = "embed"
Said = tuple[str, str | None, str, int, int]
"""What a link holds: administration, project, quantity, when it was made (ms) and when it ends (s), both since 1970."""

_encoder = msgspec.json.Encoder()


class EmbedAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A chart to embed: of a whole administration (a manager's own if absent), or of one of its projects."""

    tenant: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    project: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    quantity: str = "total_tokens"
    minutes: Annotated[int, Meta(ge=1, le=MINUTES_MAX, description="How long the link works.")] = 60


class EmbedMade(msgspec.Struct):
    """A link, and when it ends."""

    url: str
    expires_at: datetime


@post("/v1/embeds", summary="A link that shows one chart for a short time", guards=[require("operator", "manager")])
async def post_embed(request: Request[Any, Any, Any], data: JSONBody[EmbedAsked]) -> EmbedMade:
    """The page behind it may be framed by the sites of `JAUGE_EMBED_ANCESTORS`."""
    tenant = data.tenant or caller_of(request).tenant
    if tenant is None:
        raise Unprocessable("missing_field", "A chart is of one administration.", field="tenant")
    caller_within(request, tenant)
    if data.quantity not in PAGE_QUANTITIES:
        raise Unprocessable("unknown_value", "Not a quantity.", field="quantity", expected=", ".join(PAGE_QUANTITIES))
    expires_at = (clock() + timedelta(minutes=data.minutes)).replace(microsecond=0)
    link = signed(request.app.state.master_key, Embed(tenant, data.project, data.quantity), clock(), expires_at)
    return EmbedMade(f"{request.app.state.settings.public_url.rstrip('/')}/embed/{link}", expires_at)


@delete(
    "/v1/embeds",
    summary="End every link of an administration before its time",
    guards=[require("operator", "manager")],
    sync_to_thread=True,
)
def delete_embeds(
    request: Request[Any, Any, Any],
    tenant: Annotated[str | None, Parameter(description="A manager's own if absent.", max_length=64)] = None,
) -> None:
    """Links made later work."""
    whose = tenant or caller_of(request).tenant
    if whose is None:
        raise Unprocessable("missing_field", "Links are of one administration.", field="tenant")
    end_embeds(request.app.state, caller_within(request, whose), whose)


def end_embeds(state: State, caller: Principal, tenant: str) -> None:
    """End every link of an administration that was made until now. Raises: NotFound, Unavailable."""
    if tenant not in state.catalog.current().tenants:
        raise NotFound("unknown_tenant", "No such administration.", field="tenant")
    said = {"ended_at": clock(), "ended_by": caller.actor.author}
    with transaction(state.engine) as connection:
        connection.execute(
            insert(embed_ending)
            .values(said | {"tenant": tenant})
            .on_conflict_do_update(index_elements=["tenant"], set_=said)
        )


def signed(key: MasterKey, embed: Embed, made_at: datetime, expires_at: datetime) -> str:
    """A link's secret part. Raises: Unavailable where no master key is configured."""
    made_ms = int(made_at.timestamp() * 1_000)
    said = _encoder.encode([embed.tenant, embed.project, embed.quantity, made_ms, int(expires_at.timestamp())])
    text = base64.urlsafe_b64encode(said).decode().rstrip("=")
    return f"{text}.{key.derive(PURPOSE, text).hex()}"


def opened(state: State, link: str, now: datetime) -> Embed:
    """What a link shows. Raises: NotFound if it isn't ours, Gone once it has ended, Forbidden, Unavailable.

    It reads the database: not for the event loop.
    """
    text, _, proof = link.partition(".")
    key: MasterKey = state.master_key
    if not hmac.compare_digest(key.derive(PURPOSE, text).hex().encode(), proof.encode(errors="replace")):
        raise NotFound("unknown_embed", "There is no such link.", field="link")
    try:
        said = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        tenant, project, quantity, made_ms, expires_s = msgspec.json.decode(said, type=Said)
    except (binascii.Error, msgspec.DecodeError) as error:  # signed by another version
        raise NotFound("unknown_embed", "There is no such link.", field="link") from error
    if now >= datetime.fromtimestamp(expires_s, UTC):
        raise Gone("embed_over", "The link has ended.", field="link")
    snapshot: Snapshot = state.catalog.current()
    entry = snapshot.tenants.get(tenant)
    if entry is None or entry.status == "deleted":
        raise NotFound("unknown_embed", "There is no such link.", field="link")
    if entry.status == "suspended":
        raise Forbidden("tenant_suspended", "The administration is suspended.")
    with transaction(state.engine) as connection:
        ended_at = connection.scalar(sa.select(embed_ending.c.ended_at).where(embed_ending.c.tenant == tenant))
    if ended_at is not None and made_ms <= ended_at.timestamp() * 1_000:
        raise Gone("embed_over", "The link has ended.", field="link")
    return Embed(tenant, project, quantity)


embeds_router = Router(
    "/",
    route_handlers=[post_embed, delete_embeds],
    security=TOKEN_SECURITY,
    tags=["usage"],
    request_max_body_size=BODY_BYTES_MAX,
)
