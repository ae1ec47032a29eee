"""The messages of Envoy's rate limit service and of gRPC's health check: the fields that we use.

Numbers and types of fields are those of `envoy.service.ratelimit.v3` (Envoy 1.40), `google.protobuf` and
`grpc.health.v1`. Names of messages are ours: they don't travel, no more than whether an enumeration is one (an
`int32` reads the same). What Envoy sends beyond is skipped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

UINT32_MAX = 2**32 - 1

OK, OVER_LIMIT = 1, 2
"""Codes of a RateLimitResponse and of each status in it."""

UNIT_OF_WINDOW: Mapping[str, int] = {"minute": 2, "day": 4, "month": 5}
"""Units that Envoy has a word for; every other window is of unit 0, unknown."""

SERVING = 1
"""Status of a HealthResponse."""

_PACKAGE = "jauge.envoy"
_FIELDS: Mapping[str, Sequence[tuple[int, str, str]]] = {
    "UInt64": [(1, "value", "uint64")],
    "Duration": [(1, "seconds", "int64")],
    # Bytes, where Envoy's are strings: a client's header that isn't UTF-8 must be refused, not fail to be read.
    "Entry": [(1, "key", "bytes"), (2, "value", "bytes")],
    "Descriptor": [(1, "entries", "Entry*"), (3, "hits_addend", "UInt64"), (4, "is_negative_hits", "bool")],
    "RateLimitRequest": [(2, "descriptors", "Descriptor*"), (3, "hits_addend", "uint32")],
    "Limit": [(1, "requests_per_unit", "uint32"), (2, "unit", "int32"), (3, "name", "string")],
    "Status": [
        (1, "code", "int32"), (2, "current_limit", "Limit"), (3, "limit_remaining", "uint32"),
        (4, "duration_until_reset", "Duration"),
    ],
    "Header": [(1, "key", "string"), (2, "value", "string")],
    # google.protobuf.Struct, of strings: a map's entries are messages of a key and a value.
    "Value": [(3, "string_value", "string")],
    "Item": [(1, "key", "string"), (2, "value", "Value")],
    "Struct": [(1, "fields", "Item*")],
    "RateLimitResponse": [
        (1, "overall_code", "int32"), (2, "statuses", "Status*"), (3, "response_headers_to_add", "Header*"),
        (5, "raw_body", "bytes"), (6, "dynamic_metadata", "Struct"),
    ],
    "HealthRequest": [(1, "service", "string")],
    "HealthResponse": [(1, "status", "int32")],
}  # fmt: skip
"""Message to its fields: number, name, type; `*`: any number of them."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="jauge/envoy.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for number, name, kind in fields:
            field = described.field.add(number=number, name=name)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if (of := kind.removesuffix("*")) in _FIELDS:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{of}"
            else:
                field.type = field.Type.Value(f"TYPE_{of.upper()}")
    return file


_pool = descriptor_pool.DescriptorPool()  # our own: another package may know Envoy's messages by their names
_pool.Add(_file())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


RateLimitRequest, RateLimitResponse = _class("RateLimitRequest"), _class("RateLimitResponse")
HealthRequest, HealthResponse = _class("HealthRequest"), _class("HealthResponse")
