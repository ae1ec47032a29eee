"""The ledger, its rollups, the quarantine, administrations and tokens."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


BRIN = {"postgresql_using": "brin", "postgresql_with": {"autosummarize": "on"}}
APPEND_ONLY = ("ledger_series", "ledger_batch", "ledger_identity", "ledger_entry")

REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger only grows: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'Record a correction instead.';
END $$
"""


def upgrade() -> None:
    op.create_table(
        "ledger_batch",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column(
            "sums", postgresql.ARRAY(sa.Numeric()), nullable=False, comment="Per quantity; null where no row knows it."
        ),
        sa.Column("rows_digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the series and rows."),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the previous hash and this header."),
        sa.PrimaryKeyConstraint("seq", name=op.f("ledger_batch_pkey")),
        comment="The hash chain: one link a transaction.",
    )
    op.create_table(
        "ledger_entry",
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("identity", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("series", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column(
            "occurred_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="Admission: started_at, or time where absent.",
        ),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("first_token_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("queue_ms", sa.BigInteger(), nullable=True),
        sa.Column("requests", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("audio_ms", sa.BigInteger(), nullable=True),
        sa.Column("embedding_inputs", sa.BigInteger(), nullable=True),
        sa.Column("images", sa.BigInteger(), nullable=True),
        sa.Column("pages", sa.BigInteger(), nullable=True),
        sa.Column("documents", sa.BigInteger(), nullable=True),
        sa.Column("bytes_in", sa.BigInteger(), nullable=True),
        sa.Column("bytes_out", sa.BigInteger(), nullable=True),
        sa.Column("searches", sa.BigInteger(), nullable=True),
        sa.Column("web_searches", sa.BigInteger(), nullable=True),
        sa.Column("storage_byte_hours", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="0 event, 1 correction, 2 void."),
        sa.Column("uncounted_requests", sa.SmallInteger(), nullable=False),
        sa.Column("corrects", sa.UUID(as_uuid=False), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("reservation", sa.Text(), nullable=True),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        comment="One row an event or correction, partitioned by month of the books (Europe/Paris).",
        postgresql_partition_by="RANGE (occurred_at)",
    )
    op.create_index("ledger_entry_batch_seq_brin", "ledger_entry", ["batch_seq"], unique=False, **BRIN)
    op.create_index(
        "ledger_entry_corrects_idx",
        "ledger_entry",
        ["corrects"],
        unique=False,
        postgresql_where=sa.text("corrects IS NOT NULL"),
    )
    op.create_index("ledger_entry_occurred_at_brin", "ledger_entry", ["occurred_at"], unique=False, **BRIN)
    op.create_table(
        "ledger_identity",
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("identity", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("fingerprint", sa.BigInteger(), nullable=False, comment="64 bits of XXH3 of the row."),
        sa.PrimaryKeyConstraint("identity", name=op.f("ledger_identity_pkey")),
        comment="Every (source, id) ever recorded, whatever its time and wherever its row is kept.",
    )
    op.create_index("ledger_identity_batch_seq_brin", "ledger_identity", ["batch_seq"], **BRIN)
    op.create_table(
        "ledger_series",
        sa.Column("number", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the canonical form."),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("api_key", sa.Text(), nullable=True),
        sa.Column("application", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("model_requested", sa.Text(), nullable=False),
        sa.Column("model_served", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("count_source", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("ledger_series_pkey")),
        sa.UniqueConstraint("digest", name=op.f("ledger_series_digest_key")),
        comment="Distinct combinations of who, what and outcome; an entry carries the number of its own.",
    )
    op.create_table(
        "quarantine",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("received_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="http, stream or file."),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "event",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Only the fields of the schema whose value has the right form.",
        ),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of code, field and event."),
        sa.Column("occurrences", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("replayed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("quarantine_pkey")),
        sa.UniqueConstraint("digest", name=op.f("quarantine_digest_key")),
        comment="Refused events, without any content.",
    )
    op.create_table(
        "tenant",
        sa.Column("number", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("tenant_pkey")),
        sa.UniqueConstraint("id", name=op.f("tenant_id_key")),
        comment="Administrations whose usage is accepted.",
    )
    op.create_table(
        "token",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the token."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('gateway', 'operator')", name=op.f("token_role_check")),
        sa.PrimaryKeyConstraint("name", name=op.f("token_pkey")),
        sa.UniqueConstraint("digest", name=op.f("token_digest_key")),
        comment="Service tokens; the token itself is shown once and never stored.",
    )
    op.create_table(
        "usage_daily",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("api_key", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("requests", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("input_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("cached_input_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("output_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("reasoning_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("audio_ms", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("embedding_inputs", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("images", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("pages", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("documents", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("bytes_in", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("bytes_out", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("searches", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("web_searches", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("storage_byte_hours", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("requests_error", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("requests_aborted", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("requests_refused", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("uncounted_requests", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.UniqueConstraint(
            "tenant",
            "day",
            "project",
            "user",
            "api_key",
            "model",
            "operation",
            name="usage_daily_key",
            postgresql_nulls_not_distinct=True,
        ),
        comment="Usage by day of the books (Europe/Paris), down to people and keys.",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "usage_hourly",
        sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("requests", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("input_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("cached_input_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("output_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("reasoning_tokens", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("audio_ms", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("embedding_inputs", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("images", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("pages", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("documents", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("bytes_in", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("bytes_out", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("searches", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("web_searches", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("storage_byte_hours", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("requests_error", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("requests_aborted", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("requests_refused", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("uncounted_requests", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.UniqueConstraint(
            "tenant",
            "hour",
            "project",
            "model",
            "operation",
            name="usage_hourly_key",
            postgresql_nulls_not_distinct=True,
        ),
        comment="Usage by hour (UTC): charts and invoices.",
        postgresql_with={"fillfactor": "70"},
    )
    op.execute(REFUSE_CHANGE)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
