"""Files of keys that a gateway has issued: CSV or NDJSON, read line by line and taken over in calls."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import IO, Any

import msgspec
import sqlalchemy as sa

from metering.catalog.imported_keys import Imported, ImportedKey, import_keys
from metering.cli.asking import read_instant
from metering.database import Actor, transaction
from metering.errors import BadRequest, JaugeError, Unprocessable
from metering.progress import Advance

CALL_KEYS_MAX = 10_000
"""Keys of one call, which is written whole or not at all."""

FIELDS = ImportedKey.__struct_fields__

Numbered = tuple[int, dict[str, Any]]
"""The number of a line of the file, from 1, and its fields."""


def import_file(
    engine: sa.Engine, actor: Actor, tenant_id: str, file: IO[bytes], advance: Advance
) -> dict[str, int]:  # fmt: skip
    """Take over the keys of a file; `advance` is told the bytes read. Returns how many were added, and known.

    Raises: BadRequest, Unprocessable, Conflict, which name lines and quote nothing of them; Unavailable.
    """
    counts = {"added": 0, "known": 0}
    numbered = _read(_lines(file, advance))
    while call := list(islice(numbered, CALL_KEYS_MAX)):
        done = _take_over(engine, actor, tenant_id, call)
        counts["added"] += done.added
        counts["known"] += done.known
    return counts


def _take_over(engine: sa.Engine, actor: Actor, tenant_id: str, call: Sequence[Numbered]) -> Imported:
    wanted = [_key(number, fields) for number, fields in call]
    try:
        with transaction(engine, actor=actor) as connection:
            return import_keys(connection, tenant_id, wanted)
    except JaugeError as error:
        # Places in the call become lines of the file.
        if error.field is not None:
            error.field = re.sub(r"keys\[(\d+)\]", lambda place: f"line {call[int(place[1])][0]}", error.field)
        raise


def _lines(file: IO[bytes], advance: Advance) -> Iterator[str]:
    """Lines of a file; the bar is told their bytes."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadRequest("malformed_file", "The file is not UTF-8.", field=f"line {number}") from error
        advance(len(line))


def _read(lines: Iterator[str]) -> Iterator[Numbered]:
    """Keys of a file, which is NDJSON if it begins with a brace. Raises: BadRequest, naming the line."""
    first = next(lines, "")
    whole = chain([first], lines)
    return _read_json(whole) if first.lstrip().startswith("{") else _read_csv(whole)


def _read_json(lines: Iterable[str]) -> Iterator[Numbered]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequest("malformed_file", "A line is not JSON.", field=f"line {number}") from error
        if not isinstance(fields, dict):
            raise BadRequest("malformed_file", "A line is no key.", field=f"line {number}", expected="an object")
        yield number, fields


def _read_csv(lines: Iterable[str]) -> Iterator[Numbered]:
    reader = csv.DictReader(lines, strict=True)
    try:
        if not set(reader.fieldnames or ()) <= set(FIELDS):
            raise BadRequest("malformed_file", "The first line names the columns.", expected=", ".join(FIELDS))
        for row in reader:
            if None in row:
                raise BadRequest("malformed_file", "A line has too many columns.", field=f"line {reader.line_num}")
            yield reader.line_num, {name: value for name, value in row.items() if value}
    except csv.Error as error:
        raise BadRequest("malformed_file", "A line is not CSV.", field=f"line {reader.reader.line_num}") from error


def _key(number: int, fields: dict[str, Any]) -> ImportedKey:
    """A key of a line. Raises: Unprocessable, which quotes nothing of the line."""
    at, end = f"line {number}", fields.get("expires_at")
    if isinstance(end, str):
        try:
            fields = fields | {"expires_at": read_instant(end)}
        except ValueError as error:
            raise _invalid(f"{at}: expires_at", str(error)) from error
    try:
        return msgspec.convert(fields, ImportedKey)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        # A name that isn't known could be anything, even a value of a file without names.
        expected = f"only {', '.join(FIELDS)}" if "unknown field" in reason else reason
        raise _invalid(": ".join(filter(None, (at, place.rstrip("`")))), expected) from error


def _invalid(field: str, expected: str) -> Unprocessable:
    return Unprocessable("invalid_key_line", "A line is no key.", field=field, expected=expected)
