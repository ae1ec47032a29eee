"""Which administration a user's usage is of: by a map that somebody wrote, else by the user's organisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from metering.errors import BadRequest, Unprocessable
from metering.imports.directory import Directory
from metering.imports.names import UNATTRIBUTED, tenant_of_organisation

TenantId = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]

UNATTRIBUTED_NAME = "Sans organisation (OpenGateLLM)"


class TenantMap(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Administrations that people of the gateway belong to, by the gateway's numbers.

    A user goes before the organisation. default: of users without an organisation, and of usage whose user is gone.
    """

    organisations: dict[int, TenantId] = {}
    users: dict[int, TenantId] = {}
    default: TenantId = UNATTRIBUTED


@dataclass(frozen=True, slots=True)
class Attribution:
    """The administration of every user. default: of nobody's usage. names: of administrations, for people."""

    by_user: Mapping[int, str]
    default: str
    names: Mapping[str, str]

    def tenant_of(self, user_id: int | None) -> str:
        """The administration of a user's usage."""
        return self.default if user_id is None else self.by_user.get(user_id, self.default)


def read_tenant_map(text: bytes) -> TenantMap:
    """A tenant map (YAML). Raises: BadRequest if it isn't YAML; Unprocessable, naming the place."""
    try:
        read = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else None
        raise BadRequest("malformed_yaml", "The tenant map is not YAML.", field=place) from error
    try:
        return msgspec.convert(read, TenantMap, strict=False)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        raise Unprocessable(
            "invalid_tenant_map", f"This is no tenant map: {reason}.", field=place.strip(".`") or None,
            expected="organisations, users (number to administration), default",
        ) from error  # fmt: skip


def attribute(directory: Directory, tenants: TenantMap, known: Mapping[int, str]) -> Attribution:
    """Whose usage is whose. known: users who have an account already, which stays where it is.

    Raises: Unprocessable for a map that names an organisation or user who isn't there.
    """
    for field, named, there in (
        ("organisations", tenants.organisations, directory.organisations),
        ("users", tenants.users, directory.users),
    ):
        if missing := sorted(named.keys() - there.keys()):
            raise Unprocessable(
                "unknown_in_gateway", "The tenant map names what the gateway doesn't know.",
                field=f"{field}.{missing[0]}", expected=f"one of its {field}",
            )  # fmt: skip
    by_organisation: dict[int | None, str] = {
        number: tenants.organisations.get(number, tenant_of_organisation(number)) for number in directory.organisations
    }
    by_user = {
        user.id: tenants.users.get(user.id, by_organisation.get(user.organisation_id, tenants.default))
        for user in directory.users.values()
    }
    names = {by_organisation[number]: name for number, name in sorted(directory.organisations.items(), reverse=True)}
    mapped = {*tenants.users.values(), *([tenants.default] if directory.has_unattributed else [])}
    unnamed = {tenant: UNATTRIBUTED_NAME if tenant == UNATTRIBUTED else tenant for tenant in mapped - names.keys()}
    return Attribution({**by_user, **known}, tenants.default, names | unnamed)
