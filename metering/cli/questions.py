"""Options by which commands ask about a period: of usage, and of carbon."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.printing import assignment

if TYPE_CHECKING:
    from reports.usage import UsageQuestion

GROUPS = "tenant, project, user, api_key, model, operation"

Command = Callable[..., None]


def asks_about_a_period(command: Command) -> Command:
    """Give a command the options of a question and of its answer's form; it is called with `question` and `form`."""

    @click.option("--from", "start", required=True, help="First date (Europe/Paris), or RFC 3339.")
    @click.option("--to", "end", required=True, help="Exclusive end: a date (Europe/Paris), or RFC 3339.")
    @click.option("--by", default="", help=f"Groups, separated by commas: {GROUPS}.")
    @click.option("--bucket", type=click.Choice(["hour", "day", "month"]), help="Cut the period.")
    @click.option("--tz", help="Time zone of dates and buckets.  [default: Europe/Paris]")
    @click.option("--where", multiple=True, metavar="GROUP=VALUE", help="Only this value of a group; may be repeated.")
    @click.option("--as-of", "as_of", help="As it stood after this batch.")
    @click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
    @wraps(command)
    def asking(form: Any, where: tuple[str, ...], by: str, **asked: str | None) -> None:
        command(question=_question(asked | {"group_by": by}, where), form=form)

    return asking


def _question(asked: dict[str, str | None], where: tuple[str, ...]) -> "UsageQuestion":
    from reports.usage import GROUPS as KNOWN
    from reports.usage import parse_question

    filters: dict[str, list[str]] = {}
    for name, value in map(assignment, where):
        if name not in KNOWN:
            raise click.UsageError(f"--where takes one of {GROUPS}.")
        filters.setdefault(name, []).append(value)
    return parse_question({**asked, **filters})
