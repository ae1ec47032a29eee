"""What is asked of usage and carbon over HTTP, the same wherever it is asked: how it is cut, and what of it."""

from typing import Annotated, Any

import msgspec
from litestar.di import Provide
from litestar.params import Parameter

from reports.usage import GROUPS


class UsageCut(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How usage is cut: by buckets of a time zone, by groups, of some values of groups, as of a batch."""

    bucket: str | None = None
    tz: str | None = None
    group_by: list[str] | None = None
    tenant: list[str] | None = None
    project: list[str] | None = None
    user: list[str] | None = None
    api_key: list[str] | None = None
    model: list[str] | None = None
    operation: list[str] | None = None
    as_of: int | str | None = None

    def params(self) -> dict[str, Any]:
        """As `usage.parse_question` takes it."""
        return {**msgspec.structs.asdict(self), "as_of": None if self.as_of is None else str(self.as_of)}


def usage_cut(  # noqa: PLR0913 - parameters of routes, for their OpenAPI document
    bucket: Annotated[str | None, Parameter(description="hour, day or month; one sum if absent.")] = None,
    tz: Annotated[str | None, Parameter(description="IANA time zone of dates and buckets; Europe/Paris.")] = None,
    group_by: Annotated[list[str] | None, Parameter(description=f"Any of {', '.join(GROUPS)}.")] = None,
    tenant: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    project: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    user: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    api_key: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    model: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    operation: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    as_of: Annotated[str | None, Parameter(description="As it stood after this batch.")] = None,
) -> UsageCut:
    """How usage is cut, from the parameters of a route."""
    return UsageCut(
        bucket=bucket, tz=tz, group_by=group_by, tenant=tenant, project=project, user=user, api_key=api_key,
        model=model, operation=operation, as_of=as_of,
    )  # fmt: skip


CUT = {"cut": Provide(usage_cut, sync_to_thread=False)}
"""Dependencies of a route that takes `cut: UsageCut`."""
