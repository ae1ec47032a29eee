"""Seals: months of which the entries are in files."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "ledger_seal",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("month", sa.Text(), nullable=False, comment="Of the books (Europe/Paris), as 2026-10."),
        sa.Column("start_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("end_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_batch", sa.BigInteger(), nullable=False, comment="Entries up to it are in the files."),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("manifest_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the previous seal's and of this one."),
        sa.PrimaryKeyConstraint("number", name=op.f("ledger_seal_pkey")),
        sa.UniqueConstraint("month", name=op.f("ledger_seal_month_key")),
        comment="Months of which the entries are in files, with the hash of the manifest that names those.",
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger_seal "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger_seal "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
