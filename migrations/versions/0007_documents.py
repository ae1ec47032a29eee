"""Who sells and who is billed, exchange rates, closings of months, and documents."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

TENANT_ROLE = "jauge_tenant"

APPEND_ONLY = ("exchange_rate", "month_closing", "month_closed", "billing_document")


def upgrade() -> None:
    add_columns()
    create_tables()
    create_documents()
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE TRIGGER hold_catalog BEFORE INSERT OR UPDATE OR DELETE ON exchange_rate "
        "FOR EACH STATEMENT EXECUTE FUNCTION hold_catalog()"
    )
    op.execute(
        "CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON exchange_rate "
        "FOR EACH ROW EXECUTE FUNCTION record_change('currency,valid_on', '')"
    )
    op.execute(f"GRANT SELECT (issuer) ON platform TO {TENANT_ROLE}")
    op.execute(f"GRANT SELECT ON billing_document TO {TENANT_ROLE}")
    op.execute("ALTER TABLE billing_document ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY own_rows ON billing_document TO {TENANT_ROLE} "
        "USING (tenant = current_setting('jauge.tenant', true))"
    )


def add_columns() -> None:
    documents = {
        "tenant": ("billing", "How it is billed, see documents.BillingDetails; null: as it is registered."),
        "platform": ("issuer", "Who sells, see documents.Issuer; null while nothing is billed."),
    }
    for table, (column, comment) in documents.items():
        op.add_column(table, sa.Column(column, postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment=comment))
    op.add_column(
        "convention",
        sa.Column("order_reference", sa.Text(), nullable=True, comment="The buyer's engagement number for it."),
    )


def create_tables() -> None:
    op.create_table(
        "exchange_rate",
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("valid_on", sa.Date(), nullable=False, comment="First day on which it holds."),
        sa.Column("rate_nano", sa.BigInteger(), nullable=False, comment="10^-9 EUR for one unit."),
        sa.Column("source", sa.Text(), nullable=False, comment="Who published it."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("rate_nano > 0", name=op.f("exchange_rate_rate_check")),
        sa.PrimaryKeyConstraint("currency", "valid_on", name=op.f("exchange_rate_pkey")),
        comment="What currencies are in EUR; never changed.",
    )
    op.create_table(
        "month_closing",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("month", sa.Text(), nullable=False, comment="A month of the books, as 2026-10."),
        sa.Column("is_final", sa.Boolean(), nullable=False, comment="False: a draft, which can be made again."),
        sa.Column("ledger_batch", sa.BigInteger(), nullable=False, comment="Last batch of the ledger that counts."),
        sa.Column("carbon_batch", sa.BigInteger(), nullable=False, comment="Last batch of carbon that counts."),
        sa.Column(
            "catalog_version", sa.BigInteger(), nullable=False, comment="Last change of the catalogue that counts."
        ),
        sa.Column("issued_on", sa.Date(), nullable=False, comment="Date of its documents."),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column(
            "zero_reason",
            sa.Text(),
            nullable=True,
            comment="Why usage without a price may cost nothing; null: it may not.",
        ),
        sa.Column(
            "review",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="What was found, see billing.reviewing.Review.",
        ),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("month ~ '^[0-9]{4}-[0-9]{2}$'", name=op.f("month_closing_month_check")),
        sa.PrimaryKeyConstraint("number", name=op.f("month_closing_pkey")),
        comment="Closings of months that were begun: drafts, and the one that is final.",
    )
    op.create_index(
        "month_closing_final_key", "month_closing", ["month"], unique=True, postgresql_where=sa.text("is_final")
    )
    op.create_table(
        "month_closed",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("closing", sa.BigInteger(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False, comment="Of the seal of its usage."),
        sa.Column("sealed_rows", sa.BigInteger(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False, comment="How many it has."),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["closing"], ["month_closing.number"], name=op.f("month_closed_closing_fkey")),
        sa.PrimaryKeyConstraint("month", name=op.f("month_closed_pkey")),
        sa.UniqueConstraint("closing", name=op.f("month_closed_closing_key")),
        comment="Months that are closed: sealed, and all of their documents written.",
    )


def create_documents() -> None:
    op.create_table(
        "billing_document",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False, comment="Place in the chain."),
        sa.Column("number", sa.Text(), nullable=False, comment="As on the document: F2026-000123."),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("year", sa.Integer(), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False, comment="From 1 on in each series and year, without a gap."),
        sa.Column("closing", sa.BigInteger(), nullable=False),
        sa.Column(
            "place", sa.Integer(), nullable=False, comment="From 0 on, in the order in which a closing makes them."
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=False, comment="The month that was closed."),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("convention", sa.Text(), nullable=True),
        sa.Column("settlement", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("net_cents", sa.BigInteger(), nullable=False),
        sa.Column("vat_cents", sa.BigInteger(), nullable=False),
        sa.Column("gross_cents", sa.BigInteger(), nullable=False),
        sa.Column("preceding", sa.Text(), nullable=True, comment="Invoice that it corrects."),
        sa.Column("document", sa.Text(), nullable=False, comment="All of it, in its canonical form (JSON)."),
        sa.Column(
            "files",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Suffix of each file to the SHA-256 of its bytes.",
        ),
        sa.Column(
            "hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the previous hash, document and files."
        ),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('statement', 'invoice', 'credit_note')", name=op.f("billing_document_kind_check")),
        sa.CheckConstraint("serial > 0", name=op.f("billing_document_serial_check")),
        sa.CheckConstraint("gross_cents = net_cents + vat_cents", name=op.f("billing_document_amounts_check")),
        sa.CheckConstraint(
            "(kind = 'credit_note') = (preceding IS NOT NULL)", name=op.f("billing_document_preceding_check")
        ),
        sa.ForeignKeyConstraint(["closing"], ["month_closing.number"], name=op.f("billing_document_closing_fkey")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("billing_document_tenant_fkey")),
        sa.ForeignKeyConstraint(
            ["preceding"], ["billing_document.number"], name=op.f("billing_document_preceding_fkey")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("billing_document_pkey")),
        sa.UniqueConstraint("number", name=op.f("billing_document_number_key")),
        sa.UniqueConstraint("series", "year", "serial", name=op.f("billing_document_series_year_serial_key")),
        sa.UniqueConstraint("closing", "place", name=op.f("billing_document_closing_place_key")),
        comment="Statements, invoices and credit notes, in a hash chain.",
    )
    op.create_index("billing_document_tenant_idx", "billing_document", ["tenant", "month"])
