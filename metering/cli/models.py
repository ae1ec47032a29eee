"""Commands about models: which are offered, and their end."""

from datetime import UTC, datetime
from typing import Any

import rich_click as click

from metering.cli.asking import INSTANT, form_of
from metering.cli.opening import me, services
from metering.printing import print_records


@click.group()
def models() -> None:
    """Models that are offered, or were."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models_list(as_json: bool) -> None:
    """List models by id."""
    from metering.catalog.models import look_up

    now = datetime.now(UTC)
    with services() as opened:
        snapshot = opened.catalog.current()
    records = []
    for model in (look_up(snapshot, name, now) for name in sorted(snapshot.models)):
        ends = model.retirement
        records.append(
            {
                "id": model.subject, "category": model.model.category, "licence": model.model.licence,
                "parameters": model.model.parameters, "status": model.status(now),
                "retires_at": ends and ends.retires_at, "successor": ends and ends.successor,
            }
        )  # fmt: skip
    columns = ["id", "category", "licence", "parameters", "status", "retires_at", "successor"]
    print_records(records, form_of(as_json), columns)


@models.command("retire")
@click.argument("name")
@click.option("--category", "is_category", is_flag=True, help="NAME is a category, not a model.")
@click.option("--successor", help="What replaces it: a model, or a category.")
@click.option(
    "--on",
    "retires_at",
    type=INSTANT,
    help="From when it is refused: a date (Europe/Paris), or RFC 3339.  [default: the earliest allowed date]",
)
def models_retire(name: str, is_category: bool, successor: str | None, retires_at: datetime | None) -> None:
    """Announce the end of the model NAME; its users are told. What isn't given stays as it was announced.

    A model stays reachable 30 days, a category 90. An end that is brought forward is announced anew.
    """
    from metering.catalog.kinds import KINDS, check_references, load, put
    from metering.database import transaction

    kind = KINDS["retirements"]
    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        known = load(connection, kind, kind.table.c.id == _id(name, is_category)).values()
        document = _retirement(name, is_category, successor, retires_at, next(iter(known), None), datetime.now(UTC))
        put(connection, kind, document)
        check_references(connection)
    click.echo(f"{name}: retires on {document.retires_at.isoformat()}")


def _retirement(
    name: str, is_category: bool, successor: str | None, retires_at: datetime | None, known: Any, now: datetime
) -> Any:
    """The retirement that is wanted, given the one that is announced. Raises: Unprocessable for an end too soon."""
    from metering.catalog.documents import Retirement
    from metering.errors import Unprocessable
    from metering.rules.retirement import Retiring

    kind: Retiring = "category" if is_category else "model"
    ends_at = retires_at or (known.retires_at if known else _earliest_date(kind, now))
    is_sooner = known is None or ends_at < known.retires_at
    try:
        return Retirement(
            kind=kind, subject=name, successor=successor or (known and known.successor),
            announced_at=now if is_sooner else known.announced_at, retires_at=ends_at,
        )  # fmt: skip
    except ValueError as error:
        field, _, expected = str(error).partition(": expected ")
        raise Unprocessable("invalid_retirement", "It can't retire so.", field=field, expected=expected) from error


def _earliest_date(kind: Any, now: datetime) -> datetime:
    """The first midnight (Europe/Paris) at which what is announced now may end."""
    from metering.rules.periods import PARIS, day_bounds
    from metering.rules.retirement import earliest_end

    earliest = earliest_end(kind, now)
    start, end = day_bounds(earliest.astimezone(PARIS).date())
    return start if start >= earliest else end


@models.command("keep")
@click.argument("name")
@click.option("--category", "is_category", is_flag=True, help="NAME is a category, not a model.")
def models_keep(name: str, is_category: bool) -> None:
    """Cancel the end of the model NAME that was announced."""
    from metering.catalog.kinds import KINDS, remove
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        remove(connection, KINDS["retirements"], (_id(name, is_category),))
    click.echo(f"{name}: stays")


def _id(name: str, is_category: bool) -> str:
    """Key of a retirement."""
    return f"{'category' if is_category else 'model'}:{name}"
