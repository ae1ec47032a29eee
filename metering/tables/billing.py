"""Prices and exchange rates, which are parts of the catalogue; closings of months, and the documents they made.

Nothing here is ever changed once it is written.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Timestamp, metadata

price_book = sa.Table(
    "price_book",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("vat", sa.Text, nullable=False, comment="rate, exempt or out_of_scope."),
    sa.Column("vat_bp", sa.Integer, comment="Rate, in hundredths of a percent."),
    sa.Column("vat_reason", sa.Text, comment="Code (VATEX) of why there is none."),
    sa.Column("created_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("currency IN ('EUR', 'CHF')", name="currency"),
    sa.CheckConstraint(
        "CASE vat WHEN 'rate' THEN vat_bp > 0 WHEN 'exempt' THEN vat_bp IS NULL AND vat_reason IS NOT NULL "
        "WHEN 'out_of_scope' THEN vat_bp IS NULL AND vat_reason IS NOT NULL ELSE false END",
        name="vat",
    ),
    comment="Price books: currency and tax of the prices in them; never changed.",
)

price_version = sa.Table(
    "price_version",
    metadata,
    sa.Column("book", sa.Text, sa.ForeignKey("price_book.id"), primary_key=True),
    sa.Column("selector", sa.Text, primary_key=True),
    sa.Column("meter", sa.Text, primary_key=True),
    sa.Column("valid_from", Timestamp, primary_key=True, comment="A whole hour; ends the version before."),
    sa.Column("valid_to", Timestamp, comment="Exclusive; null: until the next version."),
    sa.Column("pricing", sa.Text, nullable=False),
    sa.Column("price_nano", sa.BigInteger, comment="10^-9 of the currency for `per` base units; null: see tiers."),
    sa.Column("per", sa.BigInteger, nullable=False),
    sa.Column("tiers", pg.JSONB, nullable=False, server_default="[]", comment="See documents.PriceTier."),
    sa.Column("free", sa.BigInteger, nullable=False, comment="Base units of each month that cost nothing."),
    sa.Column("minimum_cents", sa.BigInteger, comment="Of a month with any use."),
    sa.Column("cap_cents", sa.BigInteger, comment="Of a month."),
    sa.Column("created_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("pricing IN ('unit', 'graduated', 'volume', 'package')", name="pricing"),
    sa.CheckConstraint("(price_nano IS NULL) = (pricing IN ('graduated', 'volume'))", name="price"),
    sa.CheckConstraint("per > 0", name="per"),
    sa.CheckConstraint("free >= 0", name="free"),
    sa.CheckConstraint("minimum_cents <= cap_cents", name="bounds"),
    sa.CheckConstraint("valid_from < valid_to", name="period"),
    sa.CheckConstraint(
        "date_trunc('hour', valid_from, 'UTC') = valid_from AND date_trunc('hour', valid_to, 'UTC') = valid_to",
        name="hours",
    ),
    comment="Price versions; never changed.",
)

exchange_rate = sa.Table(
    "exchange_rate",
    metadata,
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("valid_on", sa.Date, primary_key=True, comment="First day on which it holds."),
    sa.Column("rate_nano", sa.BigInteger, nullable=False, comment="10^-9 EUR for one unit."),
    sa.Column("source", sa.Text, nullable=False, comment="Who published it."),
    sa.Column("created_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("rate_nano > 0", name="rate"),
    comment="What currencies are in EUR; never changed.",
)

month_closing = sa.Table(
    "month_closing",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("month", sa.Text, nullable=False, comment="A month of the books, as 2026-10."),
    sa.Column("is_final", sa.Boolean, nullable=False, comment="False: a draft, which can be made again."),
    sa.Column("ledger_batch", sa.BigInteger, nullable=False, comment="Last batch of the ledger that counts."),
    sa.Column("carbon_batch", sa.BigInteger, nullable=False, comment="Last batch of carbon that counts."),
    sa.Column("catalog_version", sa.BigInteger, nullable=False, comment="Last change of the catalogue that counts."),
    sa.Column("issued_on", sa.Date, nullable=False, comment="Date of its documents."),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("zero_reason", sa.Text, comment="Why usage without a price may cost nothing; null: it may not."),
    sa.Column("review", pg.JSONB, nullable=False, comment="What was found, see billing.reviewing.Review."),
    sa.Column("started_at", Timestamp, nullable=False),
    sa.CheckConstraint("month ~ '^[0-9]{4}-[0-9]{2}$'", name="month"),
    sa.Index("month_closing_final_key", "month", unique=True, postgresql_where=sa.text("is_final")),
    comment="Closings of months that were begun: drafts, and the one that is final.",
)

month_closed = sa.Table(
    "month_closed",
    metadata,
    sa.Column("month", sa.Text, primary_key=True),
    sa.Column("closing", sa.BigInteger, sa.ForeignKey("month_closing.number"), nullable=False, unique=True),
    sa.Column("manifest_sha256", sa.Text, nullable=False, comment="Of the seal of its usage."),
    sa.Column("sealed_rows", sa.BigInteger, nullable=False),
    sa.Column("documents", sa.Integer, nullable=False, comment="How many it has."),
    sa.Column("ended_at", Timestamp, nullable=False),
    comment="Months that are closed: sealed, and all of their documents written.",
)

billing_document = sa.Table(
    "billing_document",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False, comment="Place in the chain."),
    sa.Column("number", sa.Text, nullable=False, unique=True, comment="As on the document: F2026-000123."),
    sa.Column("series", sa.Text, nullable=False),
    sa.Column("year", sa.Integer, nullable=False),
    sa.Column("serial", sa.Integer, nullable=False, comment="From 1 on in each series and year, without a gap."),
    sa.Column("closing", sa.BigInteger, sa.ForeignKey("month_closing.number"), nullable=False),
    sa.Column("place", sa.Integer, nullable=False, comment="From 0 on, in the order in which a closing makes them."),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("month", sa.Text, nullable=False, comment="The month that was closed."),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), nullable=False),
    sa.Column("convention", sa.Text),
    sa.Column("settlement", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("issued_on", sa.Date, nullable=False),
    sa.Column("net_cents", sa.BigInteger, nullable=False),
    sa.Column("vat_cents", sa.BigInteger, nullable=False),
    sa.Column("gross_cents", sa.BigInteger, nullable=False),
    sa.Column("preceding", sa.Text, sa.ForeignKey("billing_document.number"), comment="Invoice that it corrects."),
    sa.Column("document", sa.Text, nullable=False, comment="All of it, in its canonical form (JSON)."),
    sa.Column("files", pg.JSONB, nullable=False, comment="Suffix of each file to the SHA-256 of its bytes."),
    sa.Column("hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the previous hash, document and files."),
    sa.Column("recorded_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.UniqueConstraint("series", "year", "serial"),
    sa.UniqueConstraint("closing", "place"),
    sa.CheckConstraint("kind IN ('statement', 'invoice', 'credit_note')", name="kind"),
    sa.CheckConstraint("serial > 0", name="serial"),
    sa.CheckConstraint("gross_cents = net_cents + vat_cents", name="amounts"),
    sa.CheckConstraint("(kind = 'credit_note') = (preceding IS NOT NULL)", name="preceding"),
    sa.Index("billing_document_tenant_idx", "tenant", "month"),
    comment="Statements, invoices and credit notes, in a hash chain.",
)
