"""Names of counters read back: whose they are, and of what."""

from typing import NamedTuple

from metering.rules.limits import METERS, SCOPES, WINDOWS, Meter, Scope, Window

_SCOPES: dict[str, Scope] = {scope[0]: scope for scope in SCOPES}
_WINDOWS: dict[str, Window] = {window[:2]: window for window in WINDOWS}


class Field(NamedTuple):
    """What `rules.counting.field_of` made a counter's name of. subject: None for the administration itself."""

    scope: Scope
    subject: str | None
    selector: str
    meter: Meter
    window: Window


def read_field(name: str) -> Field:
    """A counter's name in its parts; names of people, models and the like have no bar."""
    scope, subject, selector, meter, window = name.split("|")
    return Field(_SCOPES[scope], subject or None, selector or "*", METERS[int(meter)], _WINDOWS[window])
