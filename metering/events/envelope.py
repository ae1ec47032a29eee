"""The events: closed schemas, the single source of validation, of the OpenAPI document and of the docs.

CloudEvents 1.0 in JSON. `source` and `id` together are the identity. Every name is opaque: a name is a token without
spaces or escapes, so that no prompt, answer, address or sentence fits in one.
"""

import ipaddress
import re
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import msgspec.inspect
from msgspec import Meta

from metering.rules.quantities import QUANTITY_MAX, Operation, Status

NAME_LENGTH_MAX = 128
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:/+~=-]*"
SOURCE_PATTERN = r"[A-Za-z0-9/][A-Za-z0-9._:/+~=-]*"

PEOPLE = ("user", "api_key", "project", "application")
"""Fields of `data` that stand for somebody, and so may not hold an internet address."""

# Patterns are part of the schema that callers read. They are checked apart (`is_name`), most of them once a series.
Name = Annotated[
    str, Meta(min_length=1, max_length=NAME_LENGTH_MAX, extra_json_schema={"pattern": f"^{NAME_PATTERN}$"})
]
NameOrPath = Annotated[
    str, Meta(min_length=1, max_length=NAME_LENGTH_MAX, extra_json_schema={"pattern": f"^{SOURCE_PATTERN}$"})
]
Instant = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=QUANTITY_MAX)]

HostSource = Literal["wall", "rapl"]
CountSource = Literal["provider", "gateway_tokenizer", "estimated", "partial_stream"]


class UsageData(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What one request used. Quantities are integers in a base unit; null is unknown, 0 is a measurement."""

    tenant: Annotated[Name, Meta(description="Administration, as registered.")]
    project: Annotated[Name | None, Meta(description="Project of the administration.")] = None
    user: Annotated[Name | None, Meta(description="Pseudonymous id of the person or agent.")] = None
    api_key: Annotated[Name | None, Meta(description="Id of the API key; never the key itself.")] = None
    application: Annotated[Name | None, Meta(description="Product that called: an assistant, a pipeline.")] = None
    operation: Annotated[Operation, Meta(description="Kind of API.")]
    endpoint: Annotated[NameOrPath | None, Meta(description="Path that was called.")] = None
    model_requested: Annotated[Name, Meta(description="Model, alias or category that was asked for.")]
    model_served: Annotated[Name | None, Meta(description="Model that answered.")] = None
    category: Annotated[Name | None, Meta(description="Category of the model.")] = None
    deployment: Annotated[Name | None, Meta(description="Replica that answered; ties the request to its GPUs.")] = None
    streamed: Annotated[bool, Meta(description="Whether the answer was streamed.")] = False
    started_at: Annotated[Instant | None, Meta(description="Admission; the event's period is the one it falls in.")] = (
        None
    )
    first_token_at: Annotated[Instant | None, Meta(description="First token of the answer.")] = None
    queue_ms: Annotated[Count | None, Meta(description="Wait before the model, in milliseconds.")] = None
    status: Annotated[Status, Meta(description="How the request ended.")]
    http_status: Annotated[Annotated[int, Meta(ge=100, le=599)] | None, Meta(description="HTTP status answered.")] = (
        None
    )
    finish_reason: Annotated[Name | None, Meta(description="Why generation stopped, as the provider names it.")] = None
    error_code: Annotated[Name | None, Meta(description="Error, as a code; never a message.")] = None
    requests: Annotated[Count | None, Meta(description="Requests; 1 unless stated.")] = 1
    input_tokens: Annotated[Count | None, Meta(description="Tokens read, cached ones included.")] = None
    cached_input_tokens: Annotated[Count | None, Meta(description="Part of input_tokens found in a cache.")] = None
    output_tokens: Annotated[Count | None, Meta(description="Tokens generated, reasoning included.")] = None
    reasoning_tokens: Annotated[Count | None, Meta(description="Part of output_tokens spent on reasoning.")] = None
    audio_ms: Annotated[Count | None, Meta(description="Audio processed, in milliseconds.")] = None
    embedding_inputs: Annotated[Count | None, Meta(description="Texts embedded.")] = None
    images: Annotated[Count | None, Meta(description="Images read or made.")] = None
    pages: Annotated[Count | None, Meta(description="Pages read.")] = None
    documents: Annotated[Count | None, Meta(description="Documents parsed, ingested or ranked.")] = None
    bytes_in: Annotated[Count | None, Meta(description="Size of the request, in bytes.")] = None
    bytes_out: Annotated[Count | None, Meta(description="Size of the answer, in bytes.")] = None
    searches: Annotated[Count | None, Meta(description="Searches in the platform's index.")] = None
    web_searches: Annotated[Count | None, Meta(description="Searches on the web.")] = None
    storage_byte_hours: Annotated[Count | None, Meta(description="Storage held, in bytes times hours.")] = None
    count_source: Annotated[CountSource | None, Meta(description="Where the counts come from.")] = None
    reservation: Annotated[Name | None, Meta(description="Reservation that this use settles.")] = None
    parent: Annotated[Name | None, Meta(description="Event id of the request this one is a part of.")] = None
    attempt: Annotated[Count | None, Meta(description="Attempt number at the same request, from 1.")] = None


class UsageEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A CloudEvents 1.0 envelope around what one request used."""

    specversion: Annotated[Literal["1.0"], Meta(description="Version of CloudEvents.")]
    type: Annotated[Literal["jauge.usage.v1"], Meta(description="Kind and version of the event.")]
    source: Annotated[NameOrPath, Meta(description="Gateway that emits; with `id`, the identity.")]
    id: Annotated[Name, Meta(description="Unique within the source, for ever.")]
    time: Annotated[Instant, Meta(description="End of the request, RFC 3339 with an offset.")]
    datacontenttype: Annotated[Literal["application/json"] | None, Meta(description="Media type of `data`.")] = None
    data: UsageData


class EnergyData(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What one GPU's counters said at one moment. Null is unknown; counters begin anew with the epoch."""

    node: Annotated[Name, Meta(description="Machine that the GPU is in.")]
    gpu: Annotated[Name, Meta(description="UUID of the GPU.")]
    epoch: Annotated[Name, Meta(description="Boot or driver epoch: counters begin anew with another.")]
    monotonic_us: Annotated[Count | None, Meta(description="Monotonic clock of the node, in microseconds.")] = None
    energy_mj: Annotated[Count | None, Meta(description="Energy since the epoch began, in millijoules.")] = None
    power_mw: Annotated[Count | None, Meta(description="Power now, in milliwatts.")] = None
    power_limit_mw: Annotated[Count | None, Meta(description="Power the GPU may draw, in milliwatts.")] = None
    gpu_model: Annotated[Name | None, Meta(description="Model of the GPU.")] = None
    deployment: Annotated[Name | None, Meta(description="Replica that the GPU serves; null: none.")] = None
    site: Annotated[Name | None, Meta(description="Where the node is, as the catalogue says.")] = None
    host_energy_mj: Annotated[
        Count | None, Meta(description="Energy of the node since the epoch began, in millijoules: see host_source.")
    ] = None
    host_source: Annotated[
        HostSource | None, Meta(description="wall: at the plug, GPUs included; rapl: processors and memory.")
    ] = None


class EnergyEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A CloudEvents 1.0 envelope around what one GPU's counters said."""

    specversion: Annotated[Literal["1.0"], Meta(description="Version of CloudEvents.")]
    type: Annotated[Literal["jauge.energy.v1"], Meta(description="Kind and version of the event.")]
    source: Annotated[NameOrPath, Meta(description="Agent that emits; with `id`, the identity.")]
    id: Annotated[Name, Meta(description="Unique within the source, for ever.")]
    time: Annotated[Instant, Meta(description="When it was read, by the node's clock; RFC 3339 with an offset.")]
    datacontenttype: Annotated[Literal["application/json"] | None, Meta(description="Media type of `data`.")] = None
    data: EnergyData


def names_of(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Fields of a struct that hold an opaque name."""
    shape = msgspec.inspect.type_info(struct)
    assert isinstance(shape, msgspec.inspect.StructType)
    return tuple(field.name for field in shape.fields if _holds_name(field.type))


def _holds_name(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _holds_name(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(map(_holds_name, kind.types))
    return isinstance(kind, msgspec.inspect.StrType)


_name = re.compile(NAME_PATTERN)
_source = re.compile(SOURCE_PATTERN)


def is_name(value: str) -> bool:
    """Whether a string has the form of an opaque name."""
    return _name.fullmatch(value) is not None


def is_source(value: str) -> bool:
    """Whether a string has the form of a source: a name that may be a path."""
    return _source.fullmatch(value) is not None


def is_address(value: str) -> bool:
    """Whether a name is an internet address, be it of a network or with a port."""
    host = value.partition("/")[0]
    return any(map(_is_ip, (host, host.rpartition(":")[0])))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
