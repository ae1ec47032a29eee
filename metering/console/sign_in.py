"""What signing in needs: the provider that the settings name, what is kept meanwhile, and how often it may be tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metering.console.keeping import Keeper
from metering.console.provider import Profile, Provider
from metering.errors import Unprocessable
from metering.settings import Settings
from metering.throttling import Throttle


@dataclass(frozen=True, slots=True)
class SignIn:
    """Signing in on one pair of stores. provider None: there is none; operators: see the settings."""

    provider: Provider | None
    keeper: Keeper
    throttle: Throttle
    operators: Mapping[str, str] = field(repr=False)


def sign_in_of(settings: Settings, client: Any) -> SignIn:
    """What the settings say. client: of Valkey. Raises: Unprocessable where the secret's file can't be read."""
    profile = profile_of(settings)
    provider = None if profile is None else Provider(profile)
    return SignIn(provider, Keeper(client), Throttle(client), settings.oidc_operators)


def profile_of(settings: Settings) -> Profile | None:
    """What we are at the provider that the settings name. Raises: Unprocessable."""
    if settings.oidc_issuer is None:
        return None
    assert settings.oidc_client_id is not None  # the settings see to it
    return Profile(
        settings.oidc_name, settings.oidc_issuer, settings.oidc_client_id, _secret_of(settings), settings.oidc_scopes,
        tuple(settings.oidc_algorithms.split()),
    )  # fmt: skip


def _secret_of(settings: Settings) -> str:
    if settings.oidc_client_secret is not None:
        return settings.oidc_client_secret.get_secret_value()
    path = settings.oidc_client_secret_file
    assert path is not None
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unprocessable(
            "oidc_secret_file", f"The provider's secret can't be read ({type(error).__name__}).",
            field="JAUGE_OIDC_CLIENT_SECRET_FILE", expected="a file that the service may read",
        ) from None  # fmt: skip
