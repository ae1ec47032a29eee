"""Commands about limits: those in force, requests for higher ones, and overrides."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.asking import INSTANT, PARAGRAPH, check_tenant, form_of, paged
from metering.cli.opening import me, operator, services
from metering.printing import print_records
from metering.rules.quantities import OPERATIONS, QUANTITY_MAX

if TYPE_CHECKING:
    from metering.catalog.raises import Decision

UNLIMITED = "unlimited"


@click.group()
def limits() -> None:
    """Limits in force."""


@limits.command("show")
@click.argument("tenant")
@click.option("--project", help="Limits of this project.")
@click.option("--user", help="Limits of this account.")
@click.option("--key", help="Limits of this key.")
@click.option("--model", help="Limits of what this model, category or alias means.")
@click.option("--operation", type=click.Choice(list(OPERATIONS)), help="Limits of this operation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; a value of null is unlimited.")
def limits_show(
    tenant: str, project: str | None, user: str | None, key: str | None, model: str | None, operation: Any,
    as_json: bool,
) -> None:  # fmt: skip
    """List the limits in force for TENANT; an option that isn't given stands for anything."""
    from metering.catalog.conventions import terms_of_use
    from metering.catalog.limits import limits_of, window_bounds
    from metering.catalog.models import look_up
    from metering.rules.limits import UNITS, Request, limits_about

    now = datetime.now(UTC)
    with services() as opened:
        check_tenant(opened, tenant)
        snapshot = opened.catalog.current()
    about = Request(tenant, project, user, key, operation=operation)
    if model is not None:
        named = look_up(snapshot, model, now).model
        about = about._replace(model=named.id, category=named.category)
    convention = terms_of_use(snapshot, tenant, now).convention
    records = []
    for limit in limits_about(about, limits_of(snapshot, tenant, now)):
        start, end = window_bounds(limit.window, convention, now) or (None, None)
        records.append(
            {
                "scope": limit.scope, "selector": limit.selector, "subject": limit.subject, "meter": limit.meter,
                "window": limit.window, "value": _value(limit.value, as_json), "unit": UNITS[limit.meter],
                "mode": limit.mode, "source": limit.source, "window_start": start, "window_end": end,
            }
        )  # fmt: skip
    columns = ["scope", "selector", "subject", "meter", "window", "value", "unit", "mode", "source"]
    print_records(records, form_of(as_json), [*columns, "window_start", "window_end"] if as_json else columns)


@click.command()
@click.argument("tenant")
@paged
def reservations(tenant: str, after: str, limit: int, as_json: bool) -> None:
    """List the open holds of TENANT, the first to expire first; JSON has what each holds, and where to go on."""
    import asyncio

    import msgspec

    from metering.quotas.reservations import ReservationPage, read_position, written

    async def read() -> ReservationPage:
        quotas = opened.quotas()
        try:
            found, rest = await quotas.open_holds(tenant, read_position(after), limit)
        finally:
            await quotas.close()
        return ReservationPage(tenant, found, None if rest is None else written(rest))

    with services() as opened:
        check_tenant(opened, tenant)
        page = asyncio.run(read())
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    columns = ["reservation", "project", "user", "api_key", "model", "operation", "granted_output_tokens"]
    records = [msgspec.to_builtins(one, builtin_types=(datetime,)) for one in page.items]
    print_records(records, "table", [*columns, "opened_at", "expires_at"])
    if page.next_after is not None:
        click.echo(f"There may be more: --after {page.next_after}", err=True)


@click.group()
def raises() -> None:
    """Requests for a higher limit."""


@raises.command("list")
@click.option("--state", type=click.Choice(["pending", "approved", "refused"]), help="Only these.")
@paged
def raises_list(state: Any, after: str, limit: int, as_json: bool) -> None:
    """List requests, oldest first; JSON has why, and the study of the use made."""
    from metering.catalog.raises import list_raises
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        found = list_raises(connection, state=state, after=after or None, limit=limit)
    _print_exceptions(found, ["id", "created_at", "tenant", "account", "subject"], ["state"], as_json=as_json)


@raises.command("approve")
@click.argument("request_id", metavar="ID")
@click.option("--reason", required=True, type=PARAGRAPH, help="Why: who asked is told.")
@click.option("--value", type=click.IntRange(0, QUANTITY_MAX), help="In the meter's base unit.  [default: as asked]")
@click.option("--ends", "ends_at", type=INSTANT, help="Its end: a date (Europe/Paris), or RFC 3339.  [default: none]")
def raises_approve(request_id: str, reason: str, value: int | None, ends_at: datetime | None) -> None:
    """Approve the request ID: the higher limit holds from now on."""
    from msgspec import UNSET

    from metering.catalog.raises import Decision

    granted = UNSET if value is None else value
    _decide(request_id, Decision(approved=True, reason=reason, value=granted, ends_at=ends_at))


@raises.command("refuse")
@click.argument("request_id", metavar="ID")
@click.option("--reason", required=True, type=PARAGRAPH, help="Why: who asked is told.")
def raises_refuse(request_id: str, reason: str) -> None:
    """Refuse the request ID."""
    from metering.catalog.raises import Decision

    _decide(request_id, Decision(approved=False, reason=reason))


def _decide(request_id: str, decision: "Decision") -> None:
    from metering.catalog.raises import decide_raise

    with services() as opened:
        decided = decide_raise(
            opened.engine, opened.catalog.current(), operator(), request_id, decision, datetime.now(UTC)
        )
    granted = "" if decided.granted is None else f", by {decided.granted.override}"
    click.echo(f"{decided.id}: {decided.state}{granted}")


@click.group()
def overrides() -> None:
    """Dated exceptions to limits."""


@overrides.command("list")
@click.argument("tenant")
@paged
def overrides_list(tenant: str, after: str, limit: int, as_json: bool) -> None:
    """List the exceptions of TENANT, oldest first; also those that are over."""
    from metering.catalog.overrides import list_overrides
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        check_tenant(opened, tenant)
        found = list_overrides(connection, tenant, after=after or None, limit=limit)
    _print_exceptions(found, ["id", "subject"], ["starts_at", "ends_at", "approver"], as_json=as_json)


@overrides.command("end")
@click.argument("tenant")
@click.argument("override_id", metavar="ID")
def overrides_end(tenant: str, override_id: str) -> None:
    """End the exception ID of TENANT now; it stays listed."""
    from metering.catalog.overrides import end_override
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        end_override(connection, tenant, override_id, datetime.now(UTC))
    click.echo(f"{override_id}: ended")


def _print_exceptions(found: list[Any], before: list[str], after: list[str], *, as_json: bool) -> None:
    """Requests or overrides: in a table, the limit that each is about takes the columns between."""
    import msgspec

    records = [msgspec.to_builtins(one, builtin_types=(datetime,)) for one in found]
    limit_columns = ["scope", "selector", "meter", "window", "value"]
    if as_json:
        fields = list(records[0]) if records else []
        print_records(records, "json", fields)
        return
    flat = [one | one["limit"] | {"value": _value(one["limit"]["value"], as_json)} for one in records]
    print_records(flat, "table", [*before, *limit_columns, *after])


def _value(value: int | None, as_json: bool) -> int | str | None:
    return UNLIMITED if value is None and not as_json else value
