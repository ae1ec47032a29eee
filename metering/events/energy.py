"""Readings of GPUs' counters that arrive as events: what they must still pass once decoded."""

from datetime import datetime

from metering.carbon.readings import Reading
from metering.events.envelope import EnergyData, EnergyEvent, is_name, is_source, names_of
from metering.events.refusals import Refusal
from metering.events.validation import AHEAD_MAX, OLDEST, OWN_SOURCES
from metering.ledger.append import microseconds

_NAMES = names_of(EnergyData)


def check_reading(event: EnergyEvent, now: datetime) -> Refusal | None:
    """First rule of time, naming or completeness that an event breaks."""
    return _check_time(event, now) or _check_names(event) or _check_host(event.data)


def _check_time(event: EnergyEvent, now: datetime) -> Refusal | None:
    if event.time > now + AHEAD_MAX:
        return Refusal("time_in_future", "time", "at most 10 minutes ahead")
    if event.time < OLDEST:
        return Refusal("time_too_old", "time", "2020 or later")
    return None


def _check_names(event: EnergyEvent) -> Refusal | None:
    if not is_source(event.source):
        return Refusal("invalid_name", "source", "an opaque name, or a path")
    if event.source.startswith(OWN_SOURCES):
        return Refusal("reserved_source", "source", "another source")
    if not is_name(event.id):
        return Refusal("invalid_name", "id", "an opaque name")
    for name in _NAMES:
        value = getattr(event.data, name)
        if name != "host_source" and value is not None and not is_name(value):
            return Refusal("invalid_name", f"data.{name}", "an opaque name")
    return None


def _check_host(data: EnergyData) -> Refusal | None:
    if data.host_energy_mj is not None and data.host_source is None:
        return Refusal("missing_field", "data.host_source", "how host_energy_mj is known")
    return None


def to_reading(event: EnergyEvent) -> Reading:
    """The reading that an event carries."""
    data = event.data
    return Reading(
        event.source,
        event.id,
        microseconds(event.time),
        *(getattr(data, name) for name in Reading._fields[3:]),
    )
