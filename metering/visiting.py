"""What pages know of the browser that asks: its session, and what the last action of its reader came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metering.identity import Principal

Way = Literal["oidc", "token", "demo"]
"""How somebody signed in: by the identity provider, with an access token, or as somebody of the demo."""

CSRF_FIELD = "csrf"
"""Field of a form that only a page of ours can fill in; the header `X-CSRF-Token` says the same for programs."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an action came to, said once on the page that it leads to.

    key, values: of the sentence (see `reports.wording`). place: field of the form that was at fault. entered: what the
    form held, to be filled in again; never a secret.
    """

    kind: Literal["done", "refused"]
    key: str
    values: Mapping[str, str] = field(default_factory=dict)
    place: str | None = None
    entered: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser whose reader has signed in. secret: what its cookie holds; csrf: what its forms must send back."""

    principal: Principal
    way: Way
    csrf: str = field(repr=False)
    secret: str = field(repr=False)
    said: Said | None = None
