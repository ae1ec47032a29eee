"""The one tree of errors that a caller can meet.

    JaugeError
    ├── BadRequest        400  the request can't be read
    ├── Unauthorized      401  no valid token
    ├── Forbidden         403  a valid token of another role
    ├── NotFound          404
    ├── Conflict          409  the same identity with other content
    ├── Gone              410  it was there, and is no longer
    ├── TooLarge          413  beyond a stated limit
    ├── UnsupportedMedia  415  a media type or compression that isn't read
    ├── OutOfRange        416  a part that the file doesn't have
    ├── Unprocessable     422  read, but against a rule
    ├── TooMany           429  more often than is allowed
    └── Unavailable       503  try again later: a store is away, full or busy

Every error has a code for programs and a sentence for people; neither ever carries content of the request. Over HTTP
they become problem+json (RFC 9457).
"""

from typing import ClassVar


class JaugeError(Exception):
    """An error with a code, the field it concerns and what was expected there."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        expected: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code, detail)  # what it is made of again in another process
        self.code = code
        self.detail = detail
        self.field = field
        self.expected = expected
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.detail

    def problem(self) -> dict[str, object]:
        """Members of the problem+json document (RFC 9457)."""
        members: dict[str, object] = {
            "type": f"urn:jauge:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.field is not None:
            members["field"] = self.field
        if self.expected is not None:
            members["expected"] = self.expected
        return members


class BadRequest(JaugeError):
    status = 400
    title = "The request can't be read"


class Unauthorized(JaugeError):
    status = 401
    title = "A valid token is needed"


class Forbidden(JaugeError):
    status = 403
    title = "This token doesn't allow it"


class NotFound(JaugeError):
    status = 404
    title = "Not found"


class Conflict(JaugeError):
    status = 409
    title = "Conflict with what is recorded"


class Gone(JaugeError):
    status = 410
    title = "No longer there"


class TooLarge(JaugeError):
    status = 413
    title = "Too large"


class UnsupportedMedia(JaugeError):
    status = 415
    title = "This form isn't read"


class OutOfRange(JaugeError):
    status = 416
    title = "No such bytes"


class Unprocessable(JaugeError):
    status = 422
    title = "Against a rule"


class TooMany(JaugeError):
    status = 429
    title = "Too many requests"


class Unavailable(JaugeError):
    status = 503
    title = "Try again later"
