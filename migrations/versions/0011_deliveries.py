"""Exports that are delivered to a folder or a bucket."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "delivery",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Text(), nullable=False, comment="Of the delivery in the operator's file."),
        sa.Column("period", sa.Text(), nullable=False, comment="A month (2026-10) or a day (2026-10-05) of the books."),
        sa.Column("destination", sa.Text(), nullable=False, comment="Its name in the operator's file."),
        sa.Column(
            "asked", postgresql.JSONB(), nullable=False, comment="What is exported, see exporting.asking.ExportAsked."
        ),
        sa.Column("as_of", sa.BigInteger(), nullable=False, comment="Last batch of the ledger that counts."),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=True, comment="Code of the last error; never an answer's text."),
        sa.Column("manifest", postgresql.JSONB(), nullable=True, comment="As it was written beside the file."),
        sa.Column("path", sa.Text(), nullable=True, comment="Of the file, below the destination."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("delivered_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name=op.f("delivery_state_check")),
        sa.CheckConstraint("(state = 'delivered') = (delivered_at IS NOT NULL)", name=op.f("delivery_delivered_check")),
        sa.PrimaryKeyConstraint("number", name=op.f("delivery_pkey")),
        sa.UniqueConstraint("id", "period", name=op.f("delivery_id_period_key")),
        comment="Exports to be delivered, each once.",
    )
    op.create_index("delivery_due_at_idx", "delivery", ["due_at"], postgresql_where=sa.text("state = 'waiting'"))
