"""What the counters need to remember outside their own store."""

import sqlalchemy as sa

from metering.tables.base import Timestamp, metadata

quota_epoch = sa.Table(
    "quota_epoch",
    metadata,
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False, comment="How often its counters were built from the ledger."),
    sa.Column("built_at", Timestamp, nullable=False),
    comment="Buildings of an administration's counters: what an older copy of them says is not believed.",
)
