"""What the counters need to remember outside their own store."""

import sqlalchemy as sa

from metering.tables.base import Timestamp, metadata

quota_cursor = sa.Table(
    "quota_cursor",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, server_default="ledger"),
    sa.Column("batch", sa.BigInteger, nullable=False, comment="Last batch that is settled, for every administration."),
    sa.CheckConstraint("id = 'ledger'", name="one"),
    comment="How far the ledger is in the counters; no row before the first are built.",
)

quota_epoch = sa.Table(
    "quota_epoch",
    metadata,
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False, comment="How often its counters were built from the ledger."),
    sa.Column("built_at", Timestamp, nullable=False),
    sa.Column(
        "mark", sa.BigInteger, nullable=False, server_default="0", comment="How far the ledger is in its counters."
    ),
    comment="Buildings of an administration's counters: what an older copy of them says is not believed.",
)
