"""Exports that are made while nobody waits: for who asked, and to be delivered."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Timestamp, metadata

export_job = sa.Table(
    "export_job",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True, comment="Not guessed; its folder has the same name."),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), comment="Of who asks; null: an operator."),
    sa.Column("account", sa.Text, comment="Who asks; null: an operator."),
    sa.Column("role", sa.Text, nullable=False, comment="Role of who asks, when they asked."),
    sa.Column("name", sa.Text, nullable=False, comment="Name of the token or session that asked."),
    sa.Column("author", sa.Text, nullable=False, comment="The same, as the record of changes names people."),
    sa.Column("repeat_key", sa.Text, comment="Idempotency-Key of who asks."),
    sa.Column("asked", pg.JSONB, nullable=False, comment="As it was asked, see exporting.asking.ExportAsked."),
    sa.Column("as_of", sa.BigInteger, nullable=False, comment="Last batch of the ledger that counts."),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", Timestamp, nullable=False, comment="Waiting: when it may begin. Running: end of the lease."),
    sa.Column("rows_done", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_total", sa.BigInteger, comment="Null while rows are still being read."),
    sa.Column("error", sa.Text, comment="Code of the last error."),
    sa.Column("manifest", pg.JSONB(none_as_null=True), comment="What the file is, and of; see exports.making.Made."),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("ended_at", Timestamp),
    sa.Column("expires_at", Timestamp, comment="Until then its file can be fetched."),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    sa.UniqueConstraint("author", "repeat_key"),
    sa.CheckConstraint("role IN ('operator', 'manager', 'member')", name="role"),
    sa.CheckConstraint("(role = 'operator') = (tenant IS NULL)", name="tenant"),
    sa.CheckConstraint("state IN ('waiting', 'running', 'ready', 'failed', 'cancelled', 'expired')", name="state"),
    sa.CheckConstraint("(state = 'ready') <= (manifest IS NOT NULL AND expires_at IS NOT NULL)", name="ready"),
    sa.Index("export_job_due_at_idx", "due_at", postgresql_where=sa.text("state IN ('waiting', 'running')")),
    comment="Exports that were asked for, and what came of them.",
)

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", sa.Text, nullable=False, comment="Of the delivery in the operator's file."),
    sa.Column("period", sa.Text, nullable=False, comment="A month (2026-10) or a day (2026-10-05) of the books."),
    sa.Column("destination", sa.Text, nullable=False, comment="Its name in the operator's file."),
    sa.Column("asked", pg.JSONB, nullable=False, comment="What is exported, see exporting.asking.ExportAsked."),
    sa.Column("as_of", sa.BigInteger, nullable=False, comment="Last batch of the ledger that counts."),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", Timestamp, nullable=False),
    sa.Column("error", sa.Text, comment="Code of the last error; never an answer's text."),
    sa.Column("manifest", pg.JSONB(none_as_null=True), comment="As it was written beside the file."),
    sa.Column("path", sa.Text, comment="Of the file, below the destination."),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("delivered_at", Timestamp),
    sa.UniqueConstraint("id", "period"),
    sa.CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name="state"),
    sa.CheckConstraint("(state = 'delivered') = (delivered_at IS NOT NULL)", name="delivered"),
    sa.Index("delivery_due_at_idx", "due_at", postgresql_where=sa.text("state = 'waiting'")),
    comment="Exports to be delivered, each once.",
)
