"""Totals that gateways counted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "gateway_total",
        sa.Column("source", sa.Text(), nullable=False, comment="As in events."),
        sa.Column("day", sa.Date(), nullable=False, comment="Of the books (Europe/Paris)."),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False, comment="The last one holds."),
        sa.Column(
            "totals",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="See reconciliation.posting.GatewayTotal.",
        ),
        sa.Column("posted_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("source", "day", "version", name=op.f("gateway_total_pkey")),
        comment="Totals of a day by gateways' own counts; versions are added, and never changed.",
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON gateway_total "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON gateway_total "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
