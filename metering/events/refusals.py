"""Why an event is refused: one code a reason, and never a value of the event.

Names of unknown fields are echoed only if they are made of words: a sentence or a secret can be a key in JSON.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from metering.events.envelope import EnergyData, UsageData, UsageEvent
from metering.rules.quantities import QUANTITY_MAX

FIELD_PATTERN: Final = re.compile(r"(?=.{1,40}\Z)_?[A-Za-z]{1,20}([_-][A-Za-z]{1,20})*[0-9]{0,2}")
"""Names that are echoed: up to 40 characters in words of letters. Keys and tokens have digits among theirs."""
UNNAMEABLE: Final = "(a name that is not shown)"

CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "malformed_json": "The event is not JSON.",
        "invalid_utf8": "A string of the event is not UTF-8.",
        "wrong_type": "The value is of another type.",
        "missing_field": "A required field is missing.",
        "unknown_field": "The schema is closed: this field is not part of it.",
        "content_field": "Content of a prompt or an answer is never accepted.",
        "unsupported_specversion": "Only CloudEvents 1.0 is read.",
        "unsupported_type": "This type of event is not read.",
        "unknown_value": "The value is not one of the list.",
        "invalid_name": "A name is up to 128 letters, digits and . _ : / + ~ = -; a letter, a digit or / is first.",
        "personal_identifier": "A name is opaque: an internet address is not accepted.",
        "reserved_source": "Sources that begin with jauge: are the ledger's own.",
        "negative_quantity": "A quantity can't be negative.",
        "fractional_quantity": "A quantity is an integer in its base unit.",
        "quantity_too_large": "A quantity is at most 9007199254740991.",
        "out_of_range": "The value is outside its range.",
        "invalid_time": "A time is RFC 3339 with date and time.",
        "time_without_offset": "A time needs an offset from UTC.",
        "time_in_future": "The time is more than 10 minutes ahead of the clock.",
        "time_too_old": "The time is before 2020.",
        "started_after_end": "started_at is after time.",
        "first_token_outside_request": "first_token_at is not between started_at and time.",
        "cached_exceeds_input": "cached_input_tokens is a part of input_tokens, and exceeds it.",
        "reasoning_exceeds_output": "reasoning_tokens is a part of output_tokens, and exceeds it.",
        "unknown_tenant": "The administration is not registered.",
        "unreadable_entry": "The stream's entry can't be read: too large, broken compression, or no event in it.",
        "conflict": "An event of this source and id is recorded with other content.",
    }
)
"""Every code, with its sentence in English."""

CONTENT_FIELDS: Final = frozenset({
    "prompt", "prompts", "system_prompt", "messages", "message", "content", "contents", "input", "inputs", "text",
    "texts", "query", "question", "answer", "completion", "completions", "choices", "response", "output", "outputs",
    "reasoning_content", "document", "transcript", "system", "instructions", "tools", "tool_calls", "arguments", "body",
    "email", "name", "ip",
})  # fmt: skip
"""Names that gateways give to content or to people: refused with a code of their own, so that it gets noticed."""

FIELD_PATHS: Final = frozenset(
    (
        *UsageEvent.__struct_fields__,
        *(f"data.{name}" for name in (*UsageData.__struct_fields__, *EnergyData.__struct_fields__)),
    )
)
"""Path of every field of an event, as `data.tenant`."""

_UNKNOWN_FIELD = "Object contains unknown field `"
_IN_DATA = " - at `$.data`"
_QUANTITY_CODES = {">= 0": "negative_quantity", f"<= {QUANTITY_MAX}": "quantity_too_large"}


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one event was refused: a code, the field's path from `$`, what was expected there."""

    code: str
    field: str | None = None
    expected: str | None = None

    @property
    def reason(self) -> str:
        """A sentence for people."""
        return CODES[self.code]


def from_decoding(error: Exception) -> Refusal:
    """The refusal that a decoding error of msgspec stands for, without what it quotes of the event."""
    if isinstance(error, UnicodeDecodeError):
        return Refusal("invalid_utf8")
    if not isinstance(error, msgspec.ValidationError):
        return Refusal("malformed_json", expected="a JSON object")
    text = str(error)
    if text.startswith(_UNKNOWN_FIELD):
        return _unknown_field(text.removeprefix(_UNKNOWN_FIELD))
    message, _, path = text.rpartition(" - at `$.")
    # The path is last, but what comes before can quote the event: only a path that we know is taken for one.
    place = path.removesuffix("`")
    return _from_message(message, place) if place in FIELD_PATHS else _from_message(text, None)


def _unknown_field(rest: str) -> Refusal:
    """rest: the name, a backtick, and the path unless that is the root. The name can hold anything."""
    inside_data = rest.endswith(_IN_DATA)
    name = rest.removesuffix(_IN_DATA).removesuffix("`")
    code = "content_field" if name.lower() in CONTENT_FIELDS else "unknown_field"
    return Refusal(code, _join("data" if inside_data else None, name if FIELD_PATTERN.fullmatch(name) else UNNAMEABLE))


def _from_message(message: str, place: str | None) -> Refusal:
    if named := re.fullmatch(r"Object missing required field `(\w+)`", message):
        return Refusal("missing_field", _join(place, named[1]))
    if message.startswith("Invalid enum value"):
        code = {"specversion": "unsupported_specversion", "type": "unsupported_type"}.get(place or "", "unknown_value")
        return Refusal(code, place)
    if message.startswith("Invalid RFC3339"):
        return Refusal("invalid_time", place, "RFC 3339, as 2026-10-05T08:00:00+02:00")
    if message == "Expected `datetime` with a timezone component":
        return Refusal("time_without_offset", place, "RFC 3339, as 2026-10-05T08:00:00+02:00")
    if message in {"Integer value out of range", "Number out of range"}:
        return Refusal("out_of_range", place)
    return _from_expectation(message, place)


def _from_expectation(message: str, place: str | None) -> Refusal:
    expected = message.removeprefix("Expected ").partition(", got")[0].replace("`", "")
    if message.startswith("Expected `str` of length"):
        return Refusal("invalid_name", place, expected)
    if message.startswith("Expected `int` "):
        return Refusal(_QUANTITY_CODES.get(expected.removeprefix("int "), "out_of_range"), place, expected)
    if message.startswith("Expected `int") and message.endswith("got `float`"):
        return Refusal("fractional_quantity", place, "an integer")
    return Refusal("wrong_type", place, expected if message.startswith("Expected `") else None)


def _join(place: str | None, name: str) -> str:
    return f"{place}.{name}" if place else name
