"""What gateways say they served: to be compared with the ledger."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Timestamp, metadata

gateway_total = sa.Table(
    "gateway_total",
    metadata,
    sa.Column("source", sa.Text, primary_key=True, comment="As in events."),
    sa.Column("day", sa.Date, primary_key=True, comment="Of the books (Europe/Paris)."),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False, comment="The last one holds."),
    sa.Column("totals", pg.JSONB, nullable=False, comment="See reconciliation.posting.GatewayTotal."),
    sa.Column("posted_at", Timestamp, nullable=False, server_default=sa.func.now()),
    comment="Totals of a day by gateways' own counts; versions are added, and never changed.",
)
