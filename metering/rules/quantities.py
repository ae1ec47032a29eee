"""What is counted: the quantities of a usage event, their bounds and how they nest.

Every quantity is an integer in a base unit (the unit ends its name where it has one). None is unknown; 0 is a
measurement.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args

QUANTITIES: tuple[str, ...] = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_ms",
    "embedding_inputs",
    "images",
    "pages",
    "documents",
    "bytes_in",
    "bytes_out",
    "searches",
    "web_searches",
    "storage_byte_hours",
)
"""Names of the quantities in the order of every table, hash and export."""

QUANTITY_MAX = 2**53 - 1
"""Largest quantity of one event: the largest integer that every JSON reader carries exactly (RFC 8259, section 6)."""

SUBSETS: Mapping[str, str] = MappingProxyType(
    {"cached_input_tokens": "input_tokens", "reasoning_tokens": "output_tokens"}
)
"""Part to whole: the part can't exceed the whole."""

Operation = Literal[
    "chat",
    "completion",
    "embedding",
    "rerank",
    "transcription",
    "ocr",
    "parse",
    "search",
    "web_search",
    "file_ingest",
    "storage",
    "image",
    "other",
]
Status = Literal["ok", "error", "aborted", "refused"]

OPERATIONS: tuple[str, ...] = get_args(Operation)
STATUSES: tuple[str, ...] = get_args(Status)

FAILURES: tuple[str, ...] = tuple(status for status in STATUSES if status != "ok")
"""Statuses other than ok; rollups count their requests apart."""

EXPECTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "chat": ("input_tokens", "output_tokens"),
        "completion": ("input_tokens", "output_tokens"),
        "embedding": ("input_tokens",),
        "rerank": ("input_tokens",),
        "transcription": ("audio_ms",),
        "ocr": ("pages",),
        "parse": ("documents",),
        "search": ("searches",),
        "web_search": ("web_searches",),
        "file_ingest": ("documents",),
        "storage": ("storage_byte_hours",),
        "image": ("images",),
        "other": (),
    }
)
"""The quantities without which an operation's use isn't counted."""


def expected_quantities(operation: str, status: str) -> tuple[str, ...]:
    """Quantities whose absence makes a request uncounted.

    A request that failed or was refused may have used nothing, so nothing is expected of it; an aborted stream has
    burnt tokens, so it is held to the same count as a completed one.
    """
    return EXPECTED[operation] if status in {"ok", "aborted"} else ()


def add(left: int | None, right: int | None) -> int | None:
    """Sum in which the unknown adds nothing, and stays unknown when nothing is known."""
    if left is None:
        return right
    return left if right is None else left + right


def subset_violation(values: Mapping[str, int | None]) -> tuple[str, str] | None:
    """First (part, whole) in which the part exceeds a known whole, if any."""
    for part, whole in SUBSETS.items():
        part_value, whole_value = values[part], values[whole]
        if part_value is not None and whole_value is not None and part_value > whole_value:
            return part, whole
    return None


def correction_delta(current: Mapping[str, int | None], wanted: Mapping[str, int]) -> dict[str, int]:
    """Signed quantities that turn what an event counts for now into what it should.

    current: quantities after every earlier correction; wanted: the quantities to set (those absent stay as they are).
    Only quantities that change are returned. A known quantity can't become unknown again: void the event instead.
    """
    return {
        name: value - (current.get(name) or 0)
        for name, value in wanted.items()
        if current.get(name) is None or value != current[name]
    }


def net(rows: Sequence[Mapping[str, int | None]]) -> dict[str, int | None]:
    """Quantities of an event after its corrections: the sum of its rows."""
    total: dict[str, int | None] = dict.fromkeys(QUANTITIES)
    for row in rows:
        for name in QUANTITIES:
            total[name] = add(total[name], row.get(name))
    return total
