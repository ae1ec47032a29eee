"""Chains of batches beside the ledger's: of readings, and of what is posted of an hour."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from metering.ledger.append import microseconds
from metering.rules.chain import GENESIS, link, rows_digest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(at_us: int) -> datetime:
    """The instant of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=at_us)


def append_link(
    connection: sa.Connection, table: sa.Table, rows: Sequence[bytes], sums: Sequence[int | None], **columns: Any
) -> int:
    """Add a batch of rows in their canonical form to a chain, whose lock the caller holds; returns its number.

    columns: what else the batch says; the chain covers it as well.
    """
    now = connection.scalar(sa.select(sa.func.clock_timestamp()))
    assert isinstance(now, datetime)
    last = connection.execute(sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
    seq, previous = (1, GENESIS) if last is None else (last.seq + 1, bytes(last.hash))
    digest = batch_digest(columns, rows)
    connection.execute(
        table.insert().values(
            seq=seq,
            recorded_at=now,
            row_count=len(rows),
            sums=list(sums),
            rows_digest=digest,
            hash=link(previous, seq, microseconds(now), len(rows), sums, digest),
            **columns,
        )
    )
    return seq


def batch_digest(columns: dict[str, Any], rows: Iterable[bytes]) -> bytes:
    """SHA-256 of what a batch says beside its header, then of its rows in their canonical form."""
    said = msgspec.json.encode(
        {name: microseconds(value) if isinstance(value, datetime) else value for name, value in sorted(columns.items())}
    )
    return rows_digest((), [said + b"\n", *(row + b"\n" for row in rows)])
