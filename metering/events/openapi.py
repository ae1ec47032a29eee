"""The events' schemas in the OpenAPI document and in the docs, from the same structs that validate them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from metering.events.envelope import NAME_PATTERN, EnergyEvent, UsageEvent
from metering.events.refusals import CODES

_RENAMED = {
    "anyOf": "any_of",
    "additionalProperties": "additional_properties",
    "minLength": "min_length",
    "maxLength": "max_length",
}


def event_schema() -> Schema:
    """JSON Schema of one event, without references."""
    return Schema(one_of=[_schema(*_components(kind)) for kind in (UsageEvent, EnergyEvent)])


def event_table(kind: type[msgspec.Struct]) -> str:
    """Fields of a kind of events as a Markdown table, for `docs/events.md`."""
    event, definitions = _components(kind)
    lines = ["| Field | Type | Required | Description |", "|---|---|---|---|"]
    return "\n".join([*lines, *_table_rows(event, definitions, "")])


def codes_table() -> str:
    """The codes of refusals as a Markdown table, for `docs/events.md`."""
    lines = ["| Code | Reason |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{code}` | {reason} |" for code, reason in CODES.items())])


def _components(kind: type[msgspec.Struct]) -> tuple[dict[str, Any], dict[str, Any]]:
    (reference,), definitions = msgspec.json.schema_components((kind,), ref_template="{name}")
    return definitions[reference["$ref"]], definitions


def _table_rows(struct: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in struct["properties"].items():
        if "$ref" in field:
            yield from _table_rows(definitions[field["$ref"]], definitions, f"{prefix}{name}.")
            continue
        required = "yes" if name in struct["required"] else ""
        yield f"| `{prefix}{name}` | {_kind(field)} | {required} | {field['description']} |"


def _kind(field: dict[str, Any]) -> str:
    """A field's type in words; null is what every optional field may be."""
    shape = next(choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null")
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if shape.get("format") == "date-time":
        return "time"
    if shape["type"] == "integer":
        return f"integer, {shape['minimum']} to {shape['maximum']}"
    if shape["type"] == "string":
        return "name" if NAME_PATTERN in shape["pattern"] else "name or path"
    return str(shape["type"])


def _schema(source: dict[str, Any], definitions: dict[str, Any]) -> Schema:
    if "$ref" in source:
        return _schema(definitions[source["$ref"]], definitions)
    fields: dict[str, Any] = {_RENAMED.get(name, name): value for name, value in source.items()}
    if "any_of" in fields:
        fields["any_of"] = [_schema(choice, definitions) for choice in fields["any_of"]]
    if "properties" in fields:
        fields["properties"] = {name: _schema(value, definitions) for name, value in fields["properties"].items()}
    if "type" in fields:
        fields["type"] = OpenAPIType(fields["type"])
    return Schema(**fields)


@dataclass
class EventsOperation(Operation):
    """The operation that records events, with its body described."""

    def __post_init__(self) -> None:
        event = event_schema()
        events = Schema(type=OpenAPIType.ARRAY, items=event)
        self.request_body = RequestBody(
            required=True,
            content={
                "application/cloudevents+json": OpenAPIMediaType(schema=event),
                "application/cloudevents-batch+json": OpenAPIMediaType(schema=events),
                "application/json": OpenAPIMediaType(schema=Schema(one_of=[event, events])),
                "application/x-ndjson": OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)),
            },
        )
