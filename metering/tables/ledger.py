"""The ledger, its rollups and the quarantine.

The ledger's own tables (`ledger_*`) only ever grow: a trigger refuses UPDATE, DELETE and TRUNCATE. Rollups
(`usage_*`) are projections of the ledger, written in the transaction that appends to it.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.rules.quantities import FAILURES, QUANTITIES
from metering.tables.base import Column, Timestamp, metadata

SERIES_FIELDS: tuple[str, ...] = (
    "source",
    "tenant",
    "project",
    "user",
    "api_key",
    "application",
    "operation",
    "endpoint",
    "model_requested",
    "model_served",
    "category",
    "deployment",
    "streamed",
    "status",
    "http_status",
    "finish_reason",
    "error_code",
    "count_source",
)
"""Attributes of a series, in the order of its canonical form."""

SERIES_REQUIRED = frozenset({"source", "tenant", "operation", "model_requested", "streamed", "status"})

HOURLY_KEYS: tuple[str, ...] = ("tenant", "project", "model", "operation")
DAILY_KEYS: tuple[str, ...] = ("tenant", "project", "user", "api_key", "model", "operation")

STATUS_COUNTS: tuple[str, ...] = tuple(f"requests_{status}" for status in FAILURES)
"""Part of `requests` by outcome; what remains was ok."""

ROLLUP_SUMS: tuple[str, ...] = (*QUANTITIES, *STATUS_COUNTS, "uncounted_requests")


def _series_column(name: str) -> Column:
    types: dict[str, type[sa.types.TypeEngine[Any]]] = {"streamed": sa.Boolean, "http_status": sa.Integer}
    return sa.Column(name, types.get(name, sa.Text), nullable=name not in SERIES_REQUIRED)


def _brin(name: str, column: str) -> sa.Index:
    """An index of block ranges, summed up as they fill: a range that isn't is read by every query."""
    return sa.Index(name, column, postgresql_using="brin", postgresql_with={"autosummarize": "on"})


ledger_series = sa.Table(
    "ledger_series",
    metadata,
    sa.Column("number", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True, comment="SHA-256 of the canonical form."),
    *(_series_column(name) for name in SERIES_FIELDS),
    comment="Distinct combinations of who, what and outcome; an entry carries the number of its own.",
)

ledger_batch = sa.Table(
    "ledger_batch",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("recorded_at", Timestamp, nullable=False),
    sa.Column("row_count", sa.Integer, nullable=False),
    sa.Column("sums", pg.ARRAY(sa.Numeric), nullable=False, comment="Per quantity; null where no row knows it."),
    sa.Column("rows_digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the series and rows."),
    sa.Column("hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the previous hash and this header."),
    comment="The hash chain: one link a transaction.",
)

ledger_identity = sa.Table(
    "ledger_identity",
    metadata,
    sa.Column("batch_seq", sa.BigInteger, nullable=False),
    sa.Column("identity", pg.UUID(as_uuid=False), primary_key=True),
    sa.Column("fingerprint", sa.BigInteger, nullable=False, comment="64 bits of XXH3 of the row."),
    _brin("ledger_identity_batch_seq_brin", "batch_seq"),
    comment="Every (source, id) ever recorded, whatever its time and wherever its row is kept.",
)

ledger_entry = sa.Table(
    "ledger_entry",
    metadata,
    sa.Column("batch_seq", sa.BigInteger, nullable=False),
    sa.Column("identity", pg.UUID(as_uuid=False), nullable=False),
    sa.Column("series", sa.Integer, nullable=False),
    sa.Column("tenant", sa.Integer, nullable=False),
    sa.Column("occurred_at", Timestamp, nullable=False, comment="Admission: started_at, or time where absent."),
    sa.Column("ended_at", Timestamp, nullable=False),
    sa.Column("first_token_at", Timestamp),
    sa.Column("queue_ms", sa.BigInteger),
    *(sa.Column(name, sa.BigInteger) for name in QUANTITIES),
    sa.Column("attempt", sa.BigInteger),
    sa.Column("kind", sa.SmallInteger, nullable=False, comment="0 event, 1 correction, 2 void."),
    sa.Column("uncounted_requests", sa.SmallInteger, nullable=False),
    sa.Column("corrects", pg.UUID(as_uuid=False)),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("reservation", sa.Text),
    sa.Column("parent", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("author", sa.Text),
    _brin("ledger_entry_batch_seq_brin", "batch_seq"),
    _brin("ledger_entry_occurred_at_brin", "occurred_at"),
    sa.Index("ledger_entry_corrects_idx", "corrects", postgresql_where=sa.text("corrects IS NOT NULL")),
    postgresql_partition_by="RANGE (occurred_at)",
    comment="One row an event or correction, partitioned by month of the books (Europe/Paris).",
)

ledger_seal = sa.Table(
    "ledger_seal",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("month", sa.Text, nullable=False, unique=True, comment="Of the books (Europe/Paris), as 2026-10."),
    sa.Column("start_at", Timestamp, nullable=False),
    sa.Column("end_at", Timestamp, nullable=False),
    sa.Column("last_batch", sa.BigInteger, nullable=False, comment="Entries up to it are in the files."),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("manifest_sha256", sa.LargeBinary, nullable=False),
    sa.Column("sealed_at", Timestamp, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the previous seal's and of this one."),
    comment="Months of which the entries are in files, with the hash of the manifest that names those.",
)


def _rollup(name: str, period: Column, keys: tuple[str, ...], comment: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        period,
        *(sa.Column(key, sa.Text, nullable=key in {"project", "user", "api_key"}) for key in keys),
        *(sa.Column(sums, sa.Numeric(38, 0)) for sums in ROLLUP_SUMS),
        sa.UniqueConstraint("tenant", period.name, *keys[1:], name=f"{name}_key", postgresql_nulls_not_distinct=True),
        comment=comment,
        postgresql_with={"fillfactor": "70"},  # room for the next batches' updates on the same page
    )


usage_hourly = _rollup(
    "usage_hourly",
    sa.Column("hour", Timestamp, nullable=False),
    HOURLY_KEYS,
    "Usage by hour (UTC): charts and invoices.",
)

usage_daily = _rollup(
    "usage_daily",
    sa.Column("day", sa.Date, nullable=False),
    DAILY_KEYS,
    "Usage by day of the books (Europe/Paris), down to people and keys.",
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("received_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("channel", sa.Text, nullable=False, comment="http, stream or file."),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("field", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("event", pg.JSONB, comment="Only the fields of the schema whose value has the right form."),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True, comment="SHA-256 of code, field and event."),
    sa.Column("occurrences", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("replayed_at", Timestamp),
    sa.Column("dismissed_at", Timestamp, comment="When somebody decided that it needs no mending."),
    sa.Column("dismissed_by", sa.Text),
    sa.Column("dismissed_why", sa.Text),
    comment="Refused events, without any content.",
)
