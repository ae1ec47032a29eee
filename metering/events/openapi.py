"""The event's schema in the OpenAPI document, from the same struct that validates it."""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from metering.events.envelope import UsageEvent

_RENAMED = {
    "anyOf": "any_of",
    "additionalProperties": "additional_properties",
    "minLength": "min_length",
    "maxLength": "max_length",
}


def event_schema() -> Schema:
    """JSON Schema of one usage event, without references."""
    (reference,), definitions = msgspec.json.schema_components((UsageEvent,), ref_template="{name}")
    return _schema(definitions[reference["$ref"]], definitions)


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
