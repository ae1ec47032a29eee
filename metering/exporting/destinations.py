"""Where exports are delivered to, and which: a file of the operator's, as it holds secrets.

    destinations:
      books: {url: "file:///srv/accounting"}
      lake: {url: "s3://bucket/prefix", endpoint: "https://s3.example", region: fr, key: ID, secret: SECRET}
    deliveries:
      - {id: charges, to: lake, every: month, since: "2026-10", export: {kind: focus, format: parquet}}

It isn't part of the catalogue: what is in that is kept for ever and read by many, and a secret may be in neither.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec
import yaml
from msgspec import Meta

from metering.catalog.documents import Document, Id, Line
from metering.errors import JaugeError, Unprocessable
from metering.exporting.asking import ExportAsked
from metering.identity import Principal
from metering.rules.periods import BOOKS_ZONE
from reports.carbon_statement import month_of
from reports.exports.making import parse_export

if TYPE_CHECKING:
    from obstore.store import ObjectStore

DELIVERER = Principal("deliveries", "operator")
DEFAULT_REGION = "us-east-1"
"""What servers take that know no regions."""
CONNECT_S, CALL_S, RETRIES = 5, 60, 2
"""For one attempt; attempts are what goes on for longer."""


class Destination(Document, frozen=True, kw_only=True):
    """A folder (file:///…), or a bucket (s3://BUCKET/PREFIX) of an S3-compatible server. secret is never shown."""

    url: Annotated[str, Meta(pattern="^(file:///|s3://[a-z0-9])[^?#]*$", max_length=1_000)]
    endpoint: Annotated[str, Meta(pattern="^https?://[^ ]+$")] | None = None
    region: Line = DEFAULT_REGION
    key: Line | None = None
    secret: Line | None = None

    def __repr__(self) -> str:
        return f"Destination({self.url!r})"


class Delivery(Document, frozen=True, kw_only=True):
    """An export of each month once it is closed, or of each day once it is over, from a first one on."""

    id: Id
    to: Id
    every: Literal["month", "day"]
    since: Line
    export: ExportAsked


class DeliveriesFile(Document, frozen=True, kw_only=True):
    """The file as a whole."""

    destinations: dict[str, Destination]
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class Place:
    """A store, and the prefix of what is put into it."""

    store: "ObjectStore"
    prefix: str


def read_deliveries(path: Path) -> DeliveriesFile:
    """The deliveries of a file. Raises: Unprocessable, which says where it is wrong and quotes no secret."""
    try:
        # Scalars as text: a date of YAML's would be none of ours.
        read = msgspec.convert(yaml.load(path.read_text(), yaml.BaseLoader), DeliveriesFile, strict=False)  # noqa: S506
    except OSError as error:
        raise _wrong("can't be read") from error
    except yaml.YAMLError:
        raise _wrong("is no YAML") from None
    except msgspec.ValidationError as error:
        raise _wrong(f"isn't in order: {error}") from None
    if len({one.id for one in read.deliveries}) < len(read.deliveries):
        raise _wrong("has two deliveries of one id")
    for one in read.deliveries:
        if one.to not in read.destinations:
            raise _wrong(f"has no destination for the delivery {one.id}")
        _check(one)
    return read


def asked_for(delivery: Delivery, period: str) -> ExportAsked:
    """What is exported for a period: a month as 2026-10, or a day as 2026-10-05."""
    export = delivery.export
    if export.kind != "usage":
        return msgspec.structs.replace(export, month=period)
    if delivery.every == "day":
        day = date.fromisoformat(period)
        return msgspec.structs.replace(export, start=period, end=(day + timedelta(days=1)).isoformat())
    start, end = (edge.isoformat() for edge in month_of(period))
    return msgspec.structs.replace(export, start=start, end=end)


def place_of(destination: Destination) -> Place:
    """The store of a destination. Nothing is asked of it yet."""
    from obstore.store import LocalStore, S3Store  # noqa: PLC0415 - what few need

    parts = urlsplit(destination.url)
    if parts.scheme == "file":
        return Place(LocalStore(unquote(parts.path), mkdir=True), "")
    config: dict[str, Any] = {"bucket": parts.netloc, "region": destination.region}
    if destination.endpoint is not None:
        config["endpoint"] = destination.endpoint
    if destination.key is not None and destination.secret is not None:
        config |= {"access_key_id": destination.key, "secret_access_key": destination.secret}
    plain = (destination.endpoint or "").startswith("http://")
    store = S3Store(
        **config,
        client_options={"allow_http": plain, "connect_timeout": f"{CONNECT_S}s", "timeout": f"{CALL_S}s"},
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=CALL_S)},
    )
    return Place(store, parts.path.strip("/"))


def _check(delivery: Delivery) -> None:
    """Raises: Unprocessable for a delivery that no period would have an export of."""
    export = delivery.export
    own = {"month": export.month, "start": export.start, "end": export.end, "as_of": export.as_of}
    if any(own.values()):
        raise _wrong(f"has a period of its own for the delivery {delivery.id}: it follows from the time")
    if delivery.every == "day" and export.kind != "usage":
        raise _wrong(f"has a delivery {delivery.id} of documents each day: those are of months")
    if export.tz not in {None, BOOKS_ZONE}:
        raise _wrong(f"has another time zone for the delivery {delivery.id}: periods are of {BOOKS_ZONE}")
    try:
        if len(delivery.since) != (7 if delivery.every == "month" else 10):
            raise ValueError
        parse_export(asked_for(delivery, delivery.since).params(), DELIVERER)
    except ValueError:
        raise _wrong(f"has no first {delivery.every} for the delivery {delivery.id}") from None
    except JaugeError as error:
        raise _wrong(f"has a delivery {delivery.id} that can't be made: {error.code}, {error.field}") from error


def _wrong(detail: str) -> Unprocessable:
    return Unprocessable(
        "invalid_deliveries", f"The file of deliveries {detail}.", field="JAUGE_DELIVERIES", expected="see docs"
    )
