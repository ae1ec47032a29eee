"""Price books and price versions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

TENANT_ROLE = "jauge_tenant"

RECORDED = {"price_book": "id", "price_version": "book,selector,meter,valid_from"}
"""Table to the columns of its key. Agents of administrations read neither: a book can be agreed with one of them."""

RENAME_PRICES = """
UPDATE convention SET prices = (
    SELECT jsonb_agg((one - 'price_eur') || jsonb_build_object('price', one -> 'price_eur') ORDER BY place)
    FROM jsonb_array_elements(prices) WITH ORDINALITY AS listed (one, place)
) WHERE prices <> '[]'
"""
"""A price is in the currency of the book, which needn't be the euro. Only its name changes."""


def upgrade() -> None:
    create_tables()
    for table, key in RECORDED.items():
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER hold_catalog BEFORE INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION hold_catalog()"
        )
        op.execute(
            f"CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION record_change('{key}', '')"
        )
    op.execute("ALTER TABLE convention DISABLE TRIGGER append_only")
    op.execute(RENAME_PRICES)
    op.execute("ALTER TABLE convention ENABLE TRIGGER append_only")
    op.execute(f"GRANT SELECT (price_book) ON platform TO {TENANT_ROLE}")


def create_tables() -> None:
    op.create_table(
        "price_book",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("vat", sa.Text(), nullable=False, comment="rate, exempt or out_of_scope."),
        sa.Column("vat_bp", sa.Integer(), nullable=True, comment="Rate, in hundredths of a percent."),
        sa.Column("vat_reason", sa.Text(), nullable=True, comment="Code (VATEX) of why there is none."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("currency IN ('EUR', 'CHF')", name=op.f("price_book_currency_check")),
        sa.CheckConstraint(
            "CASE vat WHEN 'rate' THEN vat_bp > 0 WHEN 'exempt' THEN vat_bp IS NULL AND vat_reason IS NOT NULL "
            "WHEN 'out_of_scope' THEN vat_bp IS NULL AND vat_reason IS NOT NULL ELSE false END",
            name=op.f("price_book_vat_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("price_book_pkey")),
        comment="Price books: currency and tax of the prices in them; never changed.",
    )
    op.create_table(
        "price_version",
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column(
            "valid_from",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="A whole hour; ends the version before.",
        ),
        sa.Column(
            "valid_to",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Exclusive; null: until the next version.",
        ),
        sa.Column("pricing", sa.Text(), nullable=False),
        sa.Column(
            "price_nano",
            sa.BigInteger(),
            nullable=True,
            comment="10^-9 of the currency for `per` base units; null: see tiers.",
        ),
        sa.Column("per", sa.BigInteger(), nullable=False),
        sa.Column(
            "tiers",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="See documents.PriceTier.",
        ),
        sa.Column("free", sa.BigInteger(), nullable=False, comment="Base units of each month that cost nothing."),
        sa.Column("minimum_cents", sa.BigInteger(), nullable=True, comment="Of a month with any use."),
        sa.Column("cap_cents", sa.BigInteger(), nullable=True, comment="Of a month."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "pricing IN ('unit', 'graduated', 'volume', 'package')", name=op.f("price_version_pricing_check")
        ),
        sa.CheckConstraint(
            "(price_nano IS NULL) = (pricing IN ('graduated', 'volume'))", name=op.f("price_version_price_check")
        ),
        sa.CheckConstraint("per > 0", name=op.f("price_version_per_check")),
        sa.CheckConstraint("free >= 0", name=op.f("price_version_free_check")),
        sa.CheckConstraint("minimum_cents <= cap_cents", name=op.f("price_version_bounds_check")),
        sa.CheckConstraint("valid_from < valid_to", name=op.f("price_version_period_check")),
        sa.CheckConstraint(
            "date_trunc('hour', valid_from, 'UTC') = valid_from AND date_trunc('hour', valid_to, 'UTC') = valid_to",
            name=op.f("price_version_hours_check"),
        ),
        sa.ForeignKeyConstraint(["book"], ["price_book.id"], name=op.f("price_version_book_fkey")),
        sa.PrimaryKeyConstraint("book", "selector", "meter", "valid_from", name=op.f("price_version_pkey")),
        comment="Price versions; never changed.",
    )
    for table, text in (
        ("convention", "Prices where it has none of its own; null: the platform's."),
        ("platform", "Prices of those whose convention names none, and of free use."),
    ):
        op.add_column(table, sa.Column("price_book", sa.Text(), nullable=True, comment=text))
        op.create_foreign_key(op.f(f"{table}_price_book_fkey"), table, "price_book", ["price_book"], ["id"])
