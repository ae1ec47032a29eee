"""Exports that are made while nobody waits."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

TENANT_ROLE = "jauge_tenant"


def upgrade() -> None:
    op.create_table(
        "export_job",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Text(), nullable=False, comment="Not guessed; its folder has the same name."),
        sa.Column("tenant", sa.Text(), nullable=True, comment="Of who asks; null: an operator."),
        sa.Column("account", sa.Text(), nullable=True, comment="Who asks; null: an operator."),
        sa.Column("role", sa.Text(), nullable=False, comment="Role of who asks, when they asked."),
        sa.Column("name", sa.Text(), nullable=False, comment="Name of the token or session that asked."),
        sa.Column("author", sa.Text(), nullable=False, comment="The same, as the record of changes names people."),
        sa.Column("repeat_key", sa.Text(), nullable=True, comment="Idempotency-Key of who asks."),
        sa.Column(
            "asked", postgresql.JSONB(), nullable=False, comment="As it was asked, see exporting.asking.ExportAsked."
        ),
        sa.Column("as_of", sa.BigInteger(), nullable=False, comment="Last batch of the ledger that counts."),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "due_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="Waiting: when it may begin. Running: end of the lease.",
        ),
        sa.Column("rows_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_total", sa.BigInteger(), nullable=True, comment="Null while rows are still being read."),
        sa.Column("error", sa.Text(), nullable=True, comment="Code of the last error."),
        sa.Column(
            "manifest", postgresql.JSONB(), nullable=True, comment="What the file is, and of; see exports.making.Made."
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "expires_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Until then its file can be fetched.",
        ),
        sa.CheckConstraint("role IN ('operator', 'manager', 'member')", name=op.f("export_job_role_check")),
        sa.CheckConstraint("(role = 'operator') = (tenant IS NULL)", name=op.f("export_job_tenant_check")),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'ready', 'failed', 'cancelled', 'expired')",
            name=op.f("export_job_state_check"),
        ),
        sa.CheckConstraint(
            "(state = 'ready') <= (manifest IS NOT NULL AND expires_at IS NOT NULL)",
            name=op.f("export_job_ready_check"),
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("export_job_tenant_fkey")),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("export_job_tenant_account_fkey")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("export_job_pkey")),
        sa.UniqueConstraint("id", name=op.f("export_job_id_key")),
        sa.UniqueConstraint("author", "repeat_key", name=op.f("export_job_author_repeat_key_key")),
        comment="Exports that were asked for, and what came of them.",
    )
    op.create_index(
        "export_job_due_at_idx",
        "export_job",
        ["due_at"],
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE (state, ended_at) ON export_job TO {TENANT_ROLE}")
    op.execute("ALTER TABLE export_job ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY own_rows ON export_job TO {TENANT_ROLE} "
        "USING (tenant = current_setting('jauge.tenant', true)) "
        "WITH CHECK (tenant = current_setting('jauge.tenant', true))"
    )
