"""Who is signed in on the pages, who the identity provider says people are, and which links to charts are over."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Timestamp, metadata

console_session = sa.Table(
    "console_session",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of what the browser's cookie holds."),
    sa.Column("way", sa.Text, nullable=False, comment="How its reader signed in."),
    sa.Column("tenant", sa.Text),
    sa.Column("account", sa.Text, comment="Null: an operator."),
    sa.Column("name", sa.Text, nullable=False, comment="Of the token, or of the operator as the settings name them."),
    sa.Column("token", sa.LargeBinary, comment="SHA-256 of the token it was opened with, and ends with."),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("seen_at", Timestamp, nullable=False, comment="Last use, to the minute."),
    sa.Column("said", pg.JSONB(none_as_null=True), comment="What the last action came to, until a page has said it."),
    sa.Column(
        "id_token", sa.Text, comment="What signing out at the provider takes; only the cookie's holder can read it."
    ),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    sa.CheckConstraint("way IN ('oidc', 'token', 'demo')", name="way"),
    sa.CheckConstraint("(account IS NULL) = (tenant IS NULL)", name="account"),
    sa.Index("console_session_account_idx", "account"),
    comment="Browsers that are signed in; a row goes when its session ends.",
)

console_identity = sa.Table(
    "console_identity",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of issuer and subject."),
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    sa.UniqueConstraint("account"),
    comment="Which account an identity of the provider has in an administration; a row goes with its account.",
)

embed_ending = sa.Table(
    "embed_ending",
    metadata,
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), primary_key=True),
    sa.Column("ended_at", Timestamp, nullable=False, comment="Links made until then show nothing."),
    sa.Column("ended_by", sa.Text, nullable=False),
    comment="Administrations that have ended their links to charts before their time.",
)
