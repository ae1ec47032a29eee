"""Buildings of the counters of quotas."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "quota_cursor",
        sa.Column("id", sa.Text(), server_default="ledger", nullable=False),
        sa.Column(
            "batch", sa.BigInteger(), nullable=False, comment="Last batch that is settled, for every administration."
        ),
        sa.CheckConstraint("id = 'ledger'", name=op.f("quota_cursor_one_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("quota_cursor_pkey")),
        comment="How far the ledger is in the counters; no row before the first are built.",
    )
    op.create_table(
        "quota_epoch",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column(
            "epoch", sa.BigInteger(), nullable=False, comment="How often its counters were built from the ledger."
        ),
        sa.Column("built_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column(
            "mark",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="How far the ledger is in its counters.",
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("quota_epoch_tenant_fkey")),
        sa.PrimaryKeyConstraint("tenant", name=op.f("quota_epoch_pkey")),
        comment="Buildings of an administration's counters: what an older copy of them says is not believed.",
    )
