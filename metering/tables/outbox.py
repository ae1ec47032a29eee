"""The outbox: mails and webhook calls, written in the transaction of what they tell of."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Timestamp, metadata

webhook = sa.Table(
    "webhook",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), comment="Null: the operator's, told of everybody."),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("events", pg.ARRAY(sa.Text), nullable=False, comment="Types it is told of; empty: all."),
    sa.Column("salt", sa.LargeBinary, nullable=False, comment="What its secret is derived with; no secret itself."),
    sa.Column("old_salt", sa.LargeBinary),
    sa.Column("old_salt_until", Timestamp, comment="Until then the old secret signs as well."),
    sa.Column("disabled_at", Timestamp),
    sa.Column("created_at", Timestamp, nullable=False, server_default=sa.func.now()),
    comment="Addresses that are told of events.",
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True, comment="What is told, to whom: told once."),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id")),
    sa.Column("recipient", sa.Text, nullable=False, comment="Who is told, by id, see outbox.queue."),
    sa.Column("subject", sa.Text, nullable=False, comment="Template of a mail, or type of an event."),
    sa.Column("payload", pg.JSONB, nullable=False, comment="Values for the template; no name, address or secret."),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("last_error", sa.Text, comment="A code; never an answer's text."),
    sa.Column("created_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("done_at", Timestamp),
    sa.CheckConstraint("channel IN ('mail', 'webhook')", name="channel"),
    sa.CheckConstraint("state IN ('waiting', 'sending', 'sent', 'dropped', 'failed')", name="state"),
    sa.Index("outbox_due_at_idx", "due_at", postgresql_where=sa.text("state IN ('waiting', 'sending')")),
    comment="Messages to be sent, each once.",
)
