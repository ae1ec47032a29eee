"""Sessions of the pages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "console_session",
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of what the browser's cookie holds."),
        sa.Column("way", sa.Text(), nullable=False, comment="How its reader signed in."),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("account", sa.Text(), nullable=True, comment="Null: an operator."),
        sa.Column(
            "name", sa.Text(), nullable=False, comment="Of the token, or of the operator as the settings name them."
        ),
        sa.Column(
            "token", sa.LargeBinary(), nullable=True, comment="SHA-256 of the token it was opened with, and ends with."
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("seen_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="Last use, to the minute."),
        sa.Column(
            "said",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="What the last action came to, until a page has said it.",
        ),
        sa.CheckConstraint("(account IS NULL) = (tenant IS NULL)", name=op.f("console_session_account_check")),
        sa.CheckConstraint("way IN ('oidc', 'token', 'demo')", name=op.f("console_session_way_check")),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("console_session_tenant_account_fkey")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("console_session_pkey")),
        comment="Browsers that are signed in; a row goes when its session ends.",
    )
    op.create_index("console_session_account_idx", "console_session", ["account"], unique=False)
