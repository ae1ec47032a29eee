"""Sign-in by an identity provider; sessions end with what they were opened for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

END_SESSIONS = """
CREATE FUNCTION end_sessions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE TG_TABLE_NAME
        WHEN 'account' THEN DELETE FROM console_session WHERE account = NEW.id;
        WHEN 'tenant' THEN DELETE FROM console_session WHERE tenant = NEW.id;
        ELSE DELETE FROM console_session WHERE token = NEW.digest;
    END CASE;
    IF TG_TABLE_NAME = 'account' AND to_jsonb(NEW) ->> 'status' = 'deleted' THEN
        DELETE FROM console_identity WHERE account = NEW.id;
    END IF;
    RETURN NULL;
END $$
"""
"""Whoever suspends, deletes or revokes, by a page, the API, a command or SQL: in the same transaction."""

ENDING = {
    "account": ("status", "NEW.status <> 'active'"),
    "tenant": ("status", "NEW.status <> 'active'"),
    "token": ("revoked_at", "NEW.revoked_at IS NOT NULL"),
}


def upgrade() -> None:
    op.add_column(
        "access_request",
        sa.Column(
            "siret_proven",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether the identity provider said the SIRET, and not only who asks.",
        ),
    )
    op.add_column(
        "console_session",
        sa.Column(
            "id_token",
            sa.Text(),
            nullable=True,
            comment="What signing out at the provider takes; only the cookie's holder can read it.",
        ),
    )
    op.create_table(
        "console_identity",
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of issuer and subject."),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("console_identity_tenant_account_fkey")
        ),
        sa.PrimaryKeyConstraint("digest", "tenant", name=op.f("console_identity_pkey")),
        sa.UniqueConstraint("account", name=op.f("console_identity_account_key")),
        comment="Which account an identity of the provider has in an administration; a row goes with its account.",
    )
    op.execute(END_SESSIONS)
    for table, (column, condition) in ENDING.items():
        op.execute(
            f"CREATE TRIGGER end_sessions AFTER UPDATE OF {column} ON {table} "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION end_sessions()"
        )
