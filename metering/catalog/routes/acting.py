"""What the catalogue's routes share: transactions on the caller's behalf, pages, and the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import sqlalchemy as sa
from litestar import Request
from litestar.params import QueryParameter
from msgspec import UNSET, Struct, structs

from metering.database import transaction
from metering.web import caller_of

AfterId = Annotated[str, QueryParameter(max_length=400, description="next_after of the page before.")]
PageLimit = Annotated[int, QueryParameter(ge=1, le=1000, description="Items a page.")]

Item = TypeVar("Item")


class Page(Struct, Generic[Item]):
    """Items in order, and where the next page begins."""

    items: list[Item]
    next_after: str | None


AnyPage = TypeVar("AnyPage", bound=Page[Any])


@contextmanager
def acting(request: Request[Any, Any, Any]) -> Iterator[sa.Connection]:
    """A transaction on behalf of the caller of a guarded route."""
    with transaction(request.app.state.engine, actor=caller_of(request).actor) as connection:
        yield connection


def clock() -> datetime:
    """The time of a request."""
    return datetime.now(UTC)


def stated(changes: Struct) -> dict[str, Any]:
    """The fields of a body that it states."""
    return {name: value for name, value in structs.asdict(changes).items() if value is not UNSET}


def page_of(page: type[AnyPage], items: list[Any], limit: int) -> AnyPage:
    """A page of items that have an id; a full one may be the last."""
    return page(items, items[-1].id if len(items) == limit else None)
