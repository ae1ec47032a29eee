"""A part of a file that is asked for by its bytes, so that a download that broke off goes on (RFC 9110, section 14)."""

import re
from collections.abc import Iterator
from pathlib import Path

from metering.errors import OutOfRange

CHUNK_BYTES = 1 << 18

_one_range = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def read_range(asked: str | None, size: int) -> range | None:
    """The bytes that a header `Range` asks for, of a file of `size`; None: all of it.

    Several parts at once, and what is no range, are answered by the whole file, as the standard lets a server do.
    Raises: OutOfRange where the file has none of them.
    """
    found = _one_range.fullmatch(asked or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise OutOfRange("range_outside", "The file has no such bytes.", field="Range", expected=f"bytes */{size}")
    return range(start, end)


def bytes_of(path: Path, part: range) -> Iterator[bytes]:
    """A part of a file, a piece at a time. Raises: OSError."""
    left = len(part)
    with path.open("rb") as file:
        file.seek(part.start)
        while left and (piece := file.read(min(CHUNK_BYTES, left))):
            left -= len(piece)
            yield piece
