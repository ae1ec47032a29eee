"""What routes about people share: transactions on the caller's behalf, pages, and the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from litestar import Request
from litestar.params import Parameter
from msgspec import UNSET, Struct, structs

from metering.database import transaction
from metering.web import caller_of

AfterId = Annotated[str, Parameter(max_length=200, description="next_after of the page before.")]
Limit = Annotated[int, Parameter(ge=1, le=1000, description="Items a page.")]


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
