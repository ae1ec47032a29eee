"""What commands of the catalogue ask for alike: dates, names and reasons, pages, consent, administrations."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

if TYPE_CHECKING:
    from metering.services import Services

_civil_date = re.compile(r"\d{4}-\d{2}-\d{2}")

INSTANT_FORM = "YYYY-MM-DD (midnight, Europe/Paris) or RFC 3339 with an offset"


def read_instant(text: str) -> datetime:
    """The instant, in UTC, of a date of the books or of an RFC 3339 text. Raises: ValueError."""
    from metering.rules.periods import day_bounds

    try:
        if _civil_date.fullmatch(text):
            return day_bounds(date.fromisoformat(text))[0]
        read = datetime.fromisoformat(text)
        if read.tzinfo is None:
            raise ValueError(text)
        return read.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(INSTANT_FORM) from error  # quotes nothing


class Instant(click.ParamType[datetime]):
    """A date of the books, or an RFC 3339 text, as an instant in UTC."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return read_instant(value)
        except ValueError:
            self.fail(f"{value!r}: expected {INSTANT_FORM}.", param, ctx)


class Written(click.ParamType[str]):
    """Words of a person, as the documents of the catalogue take them: a line, or a paragraph."""

    name = "text"

    def __init__(self, form: Literal["Line", "Paragraph"]) -> None:
        self.form = form

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        import msgspec

        from metering.catalog import documents

        try:
            return msgspec.convert(value.strip(), getattr(documents, self.form))  # type: ignore[no-any-return]
        except msgspec.ValidationError as error:
            self.fail(f"{error}.", param, ctx)


INSTANT = Instant()
LINE = Written("Line")
PARAGRAPH = Written("Paragraph")


def paged(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that lists: `after`, `limit`, `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--limit", default=100, type=click.IntRange(1, 1000), show_default=True, help="Items a page."),
        click.option("--after", default="", help="Id after which the page begins."),
    ):
        command = option(command)
    return command


def form_of(as_json: bool) -> Literal["json", "table"]:
    """The form in which a list is printed."""
    return "json" if as_json else "table"


def consent(question: str, yes: bool) -> None:
    """Ask, unless that was said already. Raises: Abort."""
    if not yes:
        click.confirm(question, abort=True)


def check_tenant(opened: "Services", tenant_id: str) -> None:
    """Raises: NotFound for an administration that isn't registered."""
    from metering.catalog.tenants import TenantDirectory
    from metering.errors import NotFound

    if not TenantDirectory(opened.engine).numbers([tenant_id]):
        raise NotFound("unknown_tenant", "No such administration.", field="tenant")
