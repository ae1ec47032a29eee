"""A catalogue file: what should be, compared with what is, and made so.

A file has a section for each kind of `kinds.KINDS`; what it doesn't name stays as it is. The comparison is shown before
anything is written, and all of it is written in one transaction, or nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
import yaml

from metering.catalog.documents import Document
from metering.catalog.kinds import KINDS, Key, Kind, check_references, load, put
from metering.errors import BadRequest, Unprocessable


@dataclass(frozen=True, slots=True)
class Change:
    """A document that differs: `fields` maps what differs to (before, after); before is None for a new document."""

    kind: str
    key: Key
    fields: Mapping[str, tuple[Any, Any]]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Documents of a file, by kind, in the order in which they are written."""

    documents: Sequence[tuple[Kind, Document]]


def read_file(text: bytes, kinds: Collection[str] = KINDS.keys()) -> Wanted:
    """Documents of a catalogue file (YAML) that may have sections of these kinds.

    Raises: BadRequest if it isn't YAML; Unprocessable, naming the place.
    """
    try:
        sections = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date or number that is none
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else None
        raise BadRequest("malformed_yaml", "The file is not YAML.", field=place) from error
    if not isinstance(sections, dict) or not all(isinstance(name, str) for name in sections):
        raise Unprocessable("invalid_catalogue", "A catalogue has sections.", expected=", ".join(kinds))
    if unknown := sections.keys() - set(kinds):
        raise Unprocessable("invalid_catalogue", "A section is unknown.", field=min(unknown), expected=", ".join(kinds))
    return Wanted([(kind, document) for kind in KINDS.values() for document in _documents(kind, sections)])


def _documents(kind: Kind, sections: Mapping[str, Any]) -> Iterator[Document]:
    items = sections.get(kind.name) or []
    for place, item in enumerate(items if isinstance(items, list) else [items]):
        try:
            yield msgspec.convert(item, kind.document, builtin_types=(datetime, date))
        except msgspec.ValidationError as error:
            reason = str(error).replace(" - at `$", f" - at `{kind.name}[{place}]")
            raise Unprocessable("invalid_document", reason, field=f"{kind.name}[{place}]") from error


def compare(connection: sa.Connection, wanted: Wanted) -> list[Change]:
    """What would change, in the order of writing."""
    known = {kind.name: load(connection, kind) for kind in dict.fromkeys(kind for kind, _document in wanted.documents)}
    changes = []
    for kind, document in wanted.documents:
        key = kind.key_of(document)
        before = known[kind.name].get(key)
        if before != document:
            changes.append(Change(kind.name, key, _differing(before, document), is_new=before is None))
    return changes


def apply(connection: sa.Connection, wanted: Wanted) -> list[Change]:
    """Make it so, in the caller's transaction; returns what changed. Raises: Conflict, Unprocessable."""
    changes = compare(connection, wanted)
    changed = {(change.kind, change.key) for change in changes}
    for kind, document in wanted.documents:
        if (kind.name, kind.key_of(document)) in changed:
            put(connection, kind, document)
    check_references(connection)
    return changes


def export(connection: sa.Connection, kinds: Collection[str] = KINDS.keys()) -> str:
    """The catalogue, or these kinds, as a file that `read_file` reads back to the same documents."""
    sections = {name: [_plain(document) for document in load(connection, KINDS[name]).values()] for name in kinds}
    shown = {name: items[0] if name == "platform" else items for name, items in sections.items() if items}
    return yaml.safe_dump(shown, allow_unicode=True, sort_keys=False, width=110)


def _differing(before: Document | None, after: Document) -> dict[str, tuple[Any, Any]]:
    return {
        name: (None if before is None else getattr(before, name), getattr(after, name))
        for name in after.__struct_fields__
        if before is None or getattr(before, name) != getattr(after, name)
    }


def _plain(value: Any) -> Any:
    """A document as YAML has it: dates as such, amounts as text, nothing that is at its default of null or empty."""
    built = msgspec.to_builtins(value, builtin_types=(datetime, date, Decimal))
    return _without_defaults(built)


def _without_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        # A limit's value is null on purpose: unlimited.
        return {
            name: _without_defaults(one)
            for name, one in value.items()
            if one not in (None, []) or (name == "value" and one is None)
        }
    if isinstance(value, list):
        return [_without_defaults(one) for one in value]
    return str(value) if isinstance(value, Decimal) else value
