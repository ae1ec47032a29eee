"""The hash chain: what each batch of the ledger commits to."""

import hashlib
import json
from collections.abc import Iterable, Sequence

GENESIS = bytes(32)
"""Hash before the first batch."""


def identity_of(source: str, event_id: str) -> bytes:
    """16 bytes that stand for (source, id): BLAKE2b-128 of both with a separator that neither may contain."""
    return hashlib.blake2b(f"{source}\0{event_id}".encode(), digest_size=16).digest()


def canonical_series(fields: Sequence[str | int | bool | None]) -> bytes:
    """The attributes of a series as a JSON array in ASCII, without spaces."""
    return json.dumps(list(fields), ensure_ascii=True, separators=(",", ":")).encode()


def rows_digest(series: Iterable[tuple[int, bytes]], rows: Iterable[bytes]) -> bytes:
    """SHA-256 of the series a batch uses (number, canonical form; by number), then of its rows (by identity).

    A row is its PostgreSQL binary COPY tuple after the batch's number, so that a verifier reads it back without any
    conversion.
    """
    digest = hashlib.sha256()
    for number, canonical in series:
        digest.update(b"%d %b\n" % (number, canonical))
    for row in rows:
        digest.update(row)
    return digest.digest()


def link(
    previous: bytes, seq: int, recorded_at_us: int, row_count: int, sums: Sequence[int | None], digest: bytes
) -> bytes:
    """SHA-256 of the previous link and a batch's header: number, time (µs since 1970), rows, sums, digest."""
    written = ",".join("" if value is None else str(value) for value in sums)
    header = f"jauge-batch-1\n{seq}\n{recorded_at_us}\n{row_count}\n{written}\n{digest.hex()}\n"
    return hashlib.sha256(previous + header.encode()).digest()


def seal_link(previous: bytes, number: int, sealed_at_us: int, manifest_digest: bytes) -> bytes:
    """SHA-256 of the previous seal's link and of a seal: number, time (µs since 1970), SHA-256 of its manifest.

    The manifest names the month, and the link of the ledger's chain that it was sealed at.
    """
    header = f"jauge-seal-1\n{number}\n{sealed_at_us}\n{manifest_digest.hex()}\n"
    return hashlib.sha256(previous + header.encode()).digest()
