"""What Envoy asks, read: descriptors (keys and values that its configuration makes of a request) and hits.

A descriptor without a `meter` asks for the request: one hit holds it, no hits only look. One with a `meter` tells,
after the answer, that so many hits of it were used; no hits look at that meter's limits alone.

What is wrong whatever the request is (an unknown key or meter) is an error, for the operator who wrote it. What a
client can get wrong is in the values: they are read later, and refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from metering.catalog.snapshot import digest_of
from metering.errors import BadRequest, Unprocessable
from metering.identity import secret_of
from metering.quotas.answers import Reservation, Who
from metering.rules.limits import Meter
from metering.rules.quantities import QUANTITY_MAX

DESCRIPTORS_MAX = 32

QUANTITY_OF: Mapping[Meter, str] = {
    "requests": "requests",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "output_tokens",
    "audio_ms": "audio_ms",
    "embedding_inputs": "embedding_inputs",
    "pages": "pages",
    "searches": "searches",
}
"""Meter of a descriptor to the quantity that its hits are. Tokens that nobody told apart count as output."""


class Wanted(Who, forbid_unknown_fields=True, kw_only=True):
    """The entries of a descriptor: who asks for what, and under which reservation."""

    reservation: Reservation | None = None


KEYS = frozenset(Wanted.__struct_fields__) | {"authorization", "meter"}
"""Keys that a descriptor may have."""


@dataclass(frozen=True, slots=True)
class Question:
    """A descriptor. meter None: it asks for the request itself."""

    entries: Mapping[str, str]
    meter: Meter | None
    hits: int

    @property
    def is_asking(self) -> bool:
        """Whether it holds a request."""
        return self.meter is None and self.hits > 0

    @property
    def is_counting(self) -> bool:
        """Whether it tells what was used."""
        return self.meter is not None and self.hits > 0


def read_questions(call: Any) -> list[Question]:
    """The descriptors of a RateLimitRequest.

    Raises: BadRequest where they are none or too many, or one asks for what Jauge never does. A call is about one
    request, which is asked for once: limits of every scope are checked together.
    """
    if not 0 < len(call.descriptors) <= DESCRIPTORS_MAX:
        raise _bad("descriptors", f"1 to {DESCRIPTORS_MAX} of them")
    # The call's own hits are a plain number, of which 0 is "not set"; a descriptor's tell the two apart.
    questions = [_question(descriptor, call.hits_addend or 1) for descriptor in call.descriptors]
    if sum(question.is_asking for question in questions) > 1:
        raise _bad("descriptors", "one that asks for the request, and a meter in every other")
    return questions


def read_entries(entries: Mapping[str, str]) -> Wanted:
    """The entries of a descriptor, checked. An Authorization header is hashed here and goes no further.

    Raises: Unauthorized, Unprocessable; neither quotes a value.
    """
    known = {key: value for key, value in entries.items() if key != "authorization"}
    if "authorization" in entries:
        known["key_sha256"] = digest_of(secret_of(entries["authorization"])).hex()
    try:
        return msgspec.convert(known, Wanted)
    except msgspec.ValidationError:  # its sentence may quote the value
        raise Unprocessable("invalid_request", "The model, key or an id is missing or malformed.") from None


def _question(descriptor: Any, hits_of_call: int) -> Question:
    entries: dict[str, str] = {}
    for entry in descriptor.entries:
        key = entry.key.decode("latin-1")
        if key not in KEYS or key in entries:
            raise _bad("entries", f"each of these once at most: {', '.join(sorted(KEYS))}")
        entries[key] = entry.value.decode("latin-1")
    named = entries.pop("meter", None)
    meter = None if named is None else _meter(named)
    if descriptor.is_negative_hits:
        raise _bad("is_negative_hits", "false, since usage is corrected in the ledger and never given back here")
    hits = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else hits_of_call
    if hits > (1 if meter is None else QUANTITY_MAX):
        raise _bad("hits_addend", f"0 or 1, and with a meter up to {QUANTITY_MAX}")
    return Question(entries, meter, hits)


def _meter(named: str) -> Meter:
    for meter in QUANTITY_OF:
        if meter == named:
            return meter
    raise _bad("meter", f"one of {', '.join(QUANTITY_OF)}")


def _bad(field: str, expected: str) -> BadRequest:
    return BadRequest("invalid_descriptors", f"Expected of {field}: {expected}.", field=field, expected=expected)
