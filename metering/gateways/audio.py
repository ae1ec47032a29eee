"""How long a recording lasts, from its headers: wav, mp3, flac, ogg, m4a and webm. Nothing is decoded.

What the headers say is what is held; a length that the provider measures goes before it.
"""

import io
import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

from tinytag import TinyTag, TinyTagException

from metering.rules.quantities import QUANTITY_MAX

BYTES_PER_MS = 4
"""A recording whose length can't be read is held to have so many bytes a millisecond: 32 kbit/s, as speech in Opus
(RFC 6716, section 2.1.1: 28 to 40 kbit/s for fullband speech)."""

_READ_BYTES_MAX = 2 * 1024 * 1024
_READS_MAX = 100_000
_TOTAL_BYTES_MAX = 16 * 1024 * 1024
"""A file made to keep a parser busy, or to fill its memory, is unreadable. Ogg needs most: two reads a page of a
second or so, and all of its comments."""

_TO_THE_END = (0, 0xFFFFFFFF)
"""Sizes of wav's data where it was written without knowing them."""

_EBML, _SEGMENT, _INFO, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1F43B675
_SCALE, _DURATION, _TIMESTAMP, _SIMPLE_BLOCK, _GROUP, _BLOCK = 0x2AD7B1, 0x4489, 0xE7, 0xA3, 0xA0, 0xA1
_SCALE_NS = 1_000_000


class Unreadable(Exception):
    """The headers don't tell."""


class Window(io.RawIOBase):
    """A part of a file as a file of its own, that gives little at a time and not for ever.

    Sizes in a header are whatever somebody wrote there: Unreadable after _READS_MAX reads or _TOTAL_BYTES_MAX bytes.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._size = file, start, end - start
        self._place = 0
        self._reads = self._read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        self._reads += 1
        if self._reads > _READS_MAX or self._read_bytes > _TOTAL_BYTES_MAX:
            raise Unreadable
        left = max(self._size - self._place, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        self._file.seek(self._start + self._place)
        found = self._file.read(min(wanted, _READ_BYTES_MAX))
        self._place += len(found)
        self._read_bytes += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError("before the beginning")
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def duration_ms(file: BinaryIO, start: int, end: int) -> int | None:
    """Length of the recording in bytes `start` to `end` of a file, in milliseconds (rounded up); None if unknown."""
    window = Window(file, start, end)
    head = window.read(12)
    window.seek(0)
    try:
        if head.startswith(_EBML.to_bytes(4, "big")):
            length_ms = _matroska_ms(window)
        elif head.startswith(b"RIFF") and head.endswith(b"WAVE"):
            length_ms = _wav_ms(window)
        else:
            length_ms = _tagged_ms(window, is_ogg=head.startswith(b"OggS"))
    except (Unreadable, TinyTagException, struct.error, OSError, IndexError):
        return None
    if length_ms is None or not 0 < length_ms <= QUANTITY_MAX:
        return None
    return max(math.ceil(round(length_ms, 3)), 1)


def _tagged_ms(window: Window, *, is_ogg: bool) -> float | None:
    """Of Ogg, tags are read as well: tinytag then skips what comes after them, instead of reading it by the packet."""
    seconds = TinyTag.get(file_obj=window, tags=is_ogg).duration  # type: ignore[arg-type]  # it reads, seeks and tells
    return None if seconds is None else seconds * 1_000


def _wav_ms(window: Window) -> float | None:
    """RIFF WAVE: bytes of the data, as far as they are there, by bytes a second (Microsoft's WAVEFORMATEX)."""
    size, place, bytes_a_second = window.seek(0, io.SEEK_END), 12, 0
    while True:
        window.seek(place)
        kind, length = struct.unpack("<4sI", window.read(8))
        place += 8
        if kind == b"fmt ":
            (bytes_a_second,) = struct.unpack_from("<8xI", window.read(16))
        elif kind == b"data":
            there = size - place
            told = there if length in _TO_THE_END else min(length, there)
            return told * 1_000 / bytes_a_second if bytes_a_second else None
        place += length + length % 2


def _matroska_ms(window: Window) -> float | None:
    """Matroska and webm (RFC 9559): the Duration, or where a browser recorded and didn't know it, the last block."""
    scale_ns, place = _SCALE_NS, 0
    while (found := _element(window, place)) is not None:
        kind, place, end = found
        if kind == _CLUSTER:
            break
        if kind == _INFO:
            info = dict(_children(window, place, end))
            scale_ns = _whole(info.get(_SCALE, b"")) or _SCALE_NS
            if (duration := _float(info.get(_DURATION, b""))) > 0:
                return duration * scale_ns / 1e6
        if kind != _SEGMENT:  # what is in a segment comes next
            place = end
    last = _last_timestamp(window)
    return None if last is None else last * scale_ns / 1e6


def _last_timestamp(window: Window) -> int | None:
    """Of the latest block of the last cluster, in the segment's unit. A cluster lasts 33 s at most (16 bits of ms)."""
    size = window.seek(0, io.SEEK_END)
    first = max(size - _READ_BYTES_MAX, 0)
    window.seek(first)
    tail = window.read(_READ_BYTES_MAX)
    place = tail.rfind(_CLUSTER.to_bytes(4, "big"))
    if place < 0 or (cluster := _element(window, first + place)) is None:
        return None
    _kind, start, end = cluster
    base, latest = 0, 0
    for kind, content in _children(window, start, min(end, size)):
        block = dict(_elements(content)).get(_BLOCK, b"") if kind == _GROUP else content
        if kind == _TIMESTAMP:
            base = _whole(content)
        elif kind in {_SIMPLE_BLOCK, _GROUP} and len(block) >= 4:
            latest = max(latest, *struct.unpack_from(">h", block, _vint_length(block[0])))
    return base + latest


def _children(window: Window, place: int, end: int) -> Iterator[tuple[int, bytes]]:
    while place < end and (found := _element(window, place)) is not None:
        kind, start, place = found
        window.seek(start)
        yield kind, window.read(place - start)


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    return _children(Window(io.BytesIO(content), 0, len(content)), 0, len(content))


def _element(window: Window, place: int) -> tuple[int, int, int] | None:
    """Id of the element at a place, where its content begins and ends; None at the end of the file.

    One of unknown size ends with the file.
    """
    window.seek(place)
    head = window.read(12)
    if len(head) < 2:
        return None
    id_length = _vint_length(head[0])
    size_length = _vint_length(head[id_length])
    start = id_length + size_length
    if id_length > 4 or len(head) < start:
        raise Unreadable
    bits = 7 * size_length
    size = int.from_bytes(head[id_length:start], "big") & ((1 << bits) - 1)
    whole = window.seek(0, io.SEEK_END)
    end = whole if size == (1 << bits) - 1 else min(place + start + size, whole)
    return int.from_bytes(head[:id_length], "big"), place + start, end


def _vint_length(first: int) -> int:
    """Bytes of a number whose first byte is this (RFC 8794, section 4)."""
    if first == 0:
        raise Unreadable
    return 9 - first.bit_length()


def _whole(content: bytes) -> int:
    """A number has 8 bytes at most."""
    return int.from_bytes(content[:8], "big")


def _float(content: bytes) -> float:
    value = struct.unpack(">d" if len(content) == 8 else ">f", content)[0] if len(content) in {4, 8} else 0.0
    return float(value) if math.isfinite(value) else 0.0
