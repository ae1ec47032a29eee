"""Administration: the overload level, and notices."""

import secrets
from datetime import datetime
from typing import Any, get_args

import msgspec
from litestar import MediaType, Request, Response, get, post

from metering.catalog import documents
from metering.catalog.kinds import KINDS, check_references, load, put, remove
from metering.catalog.routes.acting import acting, clock
from metering.catalog.snapshot import Snapshot
from metering.console.acting import Form as Sent
from metering.console.administration import back_to_admin, done, heads
from metering.console.fields import check_confirmed, made, start_of
from metering.errors import NotFound
from metering.identity import Principal
from metering.rules.access import Overload
from metering.visiting import Said
from reports.sheets import Block, Cell, Field, Form, Sheet, Table, answer_sheet, at, choices, confirm
from reports.wording import Language, say

OVERLOAD = "/admin/overload"
NOTICES = "/admin/notices"
LEVELS: tuple[Overload, ...] = get_args(Overload)
NOTICE_KINDS = ("maintenance", "incident", "information")


@get(OVERLOAD, include_in_schema=False, media_type=MediaType.HTML)
async def overload_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Which load is shed, and the form that changes it."""

    def build(language: Language, _reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        now = snapshot.platform
        facts: tuple[tuple[str, Cell], ...] = (
            (say(language, "admin.overload.level"), say(language, f"admin.overload.{now.overload}")),
            (say(language, "admin.reason"), now.overload_reason),
        )
        options = choices([(level, say(language, f"admin.overload.{level}")) for level in LEVELS], now.overload)
        form = Form(OVERLOAD, say(language, "admin.overload.set"), (
            Field("level", say(language, "admin.overload.level"), "select", choices=options, is_required=True),
            Field.area("reason", say(language, "admin.reason"), hint=say(language, "admin.overload.reason"),
                       is_required=False),
            confirm(language, "admin.overload.sure"),
        ), is_grave=True)  # fmt: skip
        blocks = [
            Block("overload", say(language, "admin.overload.now"), facts=facts),
            Block(
                "change", say(language, "admin.overload.set"), (say(language, "admin.overload.shed"),), forms=(form,)
            ),
        ]
        return Sheet(
            say(language, "admin.overload"), say(language, "admin.overload.what"), blocks, back_to_admin(language)
        )

    return await answer_sheet(request, build)


@post(OVERLOAD, include_in_schema=False)
async def set_overload(request: Request[Any, Any, Any]) -> Response[Any]:
    """Change the overload level, once it is confirmed."""

    def act(form: Sent) -> Said:
        check_confirmed(form)
        kind = KINDS["platform"]
        with acting(request) as connection:
            (platform,) = load(connection, kind).values()
            stated = msgspec.structs.asdict(platform) | {
                "overload": form.get("level", ""), "overload_reason": form.get("reason") or None,
            }  # fmt: skip
            put(connection, kind, made(documents.Platform, stated))
            check_references(connection)
        return Said("done", "admin.overload.done")

    return await done(request, act, OVERLOAD)


@get(NOTICES, include_in_schema=False, media_type=MediaType.HTML)
async def notices_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Every notice, and the form that publishes one."""

    def build(language: Language, _reader: Principal) -> Sheet:
        with acting(request) as connection:
            found = [one for one in load(connection, KINDS["notices"]).values() if isinstance(one, documents.Notice)]
        found.sort(key=lambda one: one.starts_at, reverse=True)
        now = clock()
        table = Table(
            say(language, "admin.notices.caption"),
            heads(language, "admin.notices.title", "admin.notices.kind", "admin.state", "admin.starts", "admin.ends",
                  "admin.notices.for"),
            tuple(_row(one, now, language) for one in found),
        )  # fmt: skip
        listed = Block(
            "notices", say(language, "admin.notices.list"), table=table, empty=say(language, "admin.notices.none")
        )
        ending = [one for one in found if one.ends_at is None or one.ends_at > now]
        blocks = [listed, _publishing(language), *([_ending(ending, language)] if ending else [])]
        return Sheet(
            say(language, "admin.notices"), say(language, "admin.notices.what"), blocks, back_to_admin(language)
        )

    return await answer_sheet(request, build)


def _row(one: documents.Notice, now: datetime, language: Language) -> tuple[Cell, ...]:
    state = "coming" if now < one.starts_at else "live" if one.ends_at is None or now < one.ends_at else "over"
    return (
        one.title_fr if language == "fr" else one.title_en, say(language, f"notice.{one.kind}"),
        say(language, f"admin.notices.{state}"), at(one.starts_at, language),
        at(one.ends_at, language) or say(language, "admin.no_end"),
        ", ".join(one.tenants) or say(language, "admin.notices.everybody"),
    )  # fmt: skip


def _publishing(language: Language) -> Block:
    kinds = choices([(kind, say(language, f"notice.{kind}")) for kind in NOTICE_KINDS])
    form = Form(NOTICES, say(language, "admin.notices.publish"), (
        Field("kind", say(language, "admin.notices.kind"), "select", choices=kinds, is_required=True),
        Field("title_fr", say(language, "admin.notices.title_fr"), is_required=True),
        Field("title_en", say(language, "admin.notices.title_en"), is_required=True),
        Field.area("text_fr", say(language, "admin.notices.text_fr")),
        Field.area("text_en", say(language, "admin.notices.text_en")),
        Field("starts_on", say(language, "admin.first_day"), "date", hint=say(language, "admin.notices.at_once")),
        Field("ends_on", say(language, "admin.notices.ends_on"), "date", hint=say(language, "admin.notices.open_end")),
        Field("tenants", say(language, "admin.notices.for"), hint=say(language, "admin.notices.tenants.hint")),
    ))  # fmt: skip
    return Block("publish", say(language, "admin.notices.new"), (say(language, "admin.notices.told"),), forms=(form,))


def _ending(found: list[documents.Notice], language: Language) -> Block:
    options = choices([(one.id, one.title_fr if language == "fr" else one.title_en) for one in found])
    which = Field("id", say(language, "admin.notices.title"), "select", choices=options, is_required=True)
    form = Form("/admin/notices/end", say(language, "admin.notices.end"), (which,))
    return Block("end", say(language, "admin.notices.end"), (say(language, "admin.notices.end.what"),), forms=(form,))


@post(NOTICES, include_in_schema=False)
async def publish_notice(request: Request[Any, Any, Any]) -> Response[Any]:
    """Publish a notice; those concerned are told by mail as well."""

    def act(form: Sent) -> Said:
        said: dict[str, Any] = {
            name: form.get(name, "") for name in ("kind", "title_fr", "title_en", "text_fr", "text_en")
        }
        said |= {
            "id": f"notice-{secrets.token_hex(6)}",
            "starts_at": start_of(form, "starts_on") or clock(),
            "ends_at": start_of(form, "ends_on"),
            "tenants": form.get("tenants", "").replace(",", " ").split(),
        }
        with acting(request) as connection:
            put(connection, KINDS["notices"], made(documents.Notice, said))
            check_references(connection)
        return Said("done", "admin.notices.published")

    return await done(request, act, NOTICES)


@post("/admin/notices/end", include_in_schema=False)
async def end_notice(request: Request[Any, Any, Any]) -> Response[Any]:
    """End a notice now; one that hasn't begun is taken away."""

    def act(form: Sent) -> Said:
        kind, now, name = KINDS["notices"], clock(), form.get("id", "")
        with acting(request) as connection:
            found = load(connection, kind).get((name,))
            if not isinstance(found, documents.Notice):
                raise NotFound("unknown_notice", "There is no such notice.", field="id")
            if found.starts_at >= now:
                remove(connection, kind, (name,))
            elif found.ends_at is None or found.ends_at > now:
                put(connection, kind, msgspec.structs.replace(found, ends_at=now))
        return Said("done", "admin.notices.ended")

    return await done(request, act, NOTICES)
