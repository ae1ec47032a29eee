"""The page "Administration" of operators: where to go, and what waits there. What its pages share is here too."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from litestar import MediaType, Request, Response, get

from metering.billing.periods import months_shown
from metering.catalog.routes.acting import acting, clock
from metering.catalog.snapshot import Snapshot
from metering.console.acting import Form as Sent
from metering.console.acting import acted, form_of
from metering.events.quarantine import is_waiting
from metering.identity import Principal
from metering.tables import access_request, raise_request
from metering.visiting import Said
from reports import wording
from reports.sheets import Block, Sheet, Table, address, answer_sheet
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/admin"


def heads(language: Language, *keys: str) -> tuple[str, ...]:
    """Headings of a table."""
    return tuple(say(language, key) for key in keys)


def back_to_admin(language: Language) -> Link:
    """The way back from a page of administration."""
    return Link(say(language, "admin.back"), address(PAGE, language))


async def done(
    request: Request[Any, Any, Any], act: Callable[[Sent], Said], back: str, refused_back: str | None = None
) -> Response[Any]:
    """Do what a form of administration asks, and lead back. See `acting.acted`."""
    return await acted(request, await form_of(request), act, back=back, refused_back=refused_back)


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML)
async def admin_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Every page of administration, with what waits on it."""

    def build(language: Language, _reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        with acting(request) as connection:
            access = _count(connection, access_request.c.state.in_(["pending", "delayed"]))
            raises = _count(connection, raise_request.c.state == "pending")
            refused = _count(connection, is_waiting())
            month = months_shown(connection, clock(), 1, None)[0]

        def row(name: str, waits: str) -> tuple[Link, str, str]:
            path = f"{PAGE}/{name}"
            return (
                Link(say(language, f"admin.{name}"), address(path, language)),
                say(language, f"admin.{name}.what"),
                waits,
            )

        def waiting(count: int) -> str:
            return say(language, "admin.waiting", count=wording.number(count, language)) if count else "—"

        rows = (
            row("access", waiting(access)), row("raises", waiting(raises)), row("conventions", "—"),
            row("prices", "—"), row("limits", "—"),
            row("overload", say(language, f"admin.overload.{snapshot.platform.overload}")),
            row("notices", "—"), row("quarantine", waiting(refused)), row("reconciliation", "—"), row("months", month),
        )  # fmt: skip
        headings = heads(language, "admin.page", "admin.for", "admin.state")
        table = Table(say(language, "admin.caption"), headings, rows)
        return Sheet(
            say(language, "admin"),
            say(language, "admin.what"),
            [Block("pages", say(language, "admin.pages"), table=table)],
        )

    return await answer_sheet(request, build)


def _count(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).where(condition)) or 0
