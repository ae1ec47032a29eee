"""What the OpenAPI document says of every route: which errors it can answer with, and in which form."""

from collections.abc import Iterator
from http import HTTPStatus

from litestar.openapi.spec import OpenAPI, OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema

from metering.web import PROBLEM_JSON

PROBLEM = Schema(
    title="Problem",
    description="An error (RFC 9457).",
    type=OpenAPIType.OBJECT,
    required=["type", "title", "status", "code", "request_id"],
    properties={
        name: Schema(type=OpenAPIType.INTEGER if name == "status" else OpenAPIType.STRING, description=text)
        for name, text in {
            "type": "urn:jauge:error: and the code",
            "title": "The kind of error, for people",
            "status": "The HTTP status",
            "detail": "What happened, for people; never quotes the request",
            "code": "What happened, for programs",
            "field": "Where",
            "expected": "What was expected there",
            "request_id": "Id of the request in the log",
        }.items()
    },
)


def document_errors(document: OpenAPI) -> None:
    """Add to every operation the errors that it can answer with."""
    for path, item in (document.paths or {}).items():
        for method in ("get", "put", "post", "patch", "delete"):
            operation: Operation | None = getattr(item, method)
            if operation is None or operation.responses is None:
                continue
            for status in _errors_of(path, method, operation):
                operation.responses[str(status.value)] = _response(status)


def _errors_of(path: str, method: str, operation: Operation) -> Iterator[HTTPStatus]:
    yield HTTPStatus.SERVICE_UNAVAILABLE
    if operation.security:
        yield HTTPStatus.UNAUTHORIZED
        yield HTTPStatus.FORBIDDEN
    if operation.parameters or operation.request_body:
        yield HTTPStatus.BAD_REQUEST
        yield HTTPStatus.UNPROCESSABLE_ENTITY
    if operation.request_body:
        yield HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        yield HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    if operation.request_body or operation.parameters or method == "delete":
        yield HTTPStatus.NOT_FOUND
    if method != "get":
        yield HTTPStatus.CONFLICT
    if method == "post":
        yield HTTPStatus.TOO_MANY_REQUESTS
    if operation.request_body or "{" in path:
        yield HTTPStatus.GONE


def _response(status: HTTPStatus) -> OpenAPIResponse:
    return OpenAPIResponse(description=status.phrase, content={PROBLEM_JSON: OpenAPIMediaType(schema=PROBLEM)})
