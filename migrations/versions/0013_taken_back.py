"""Requests for a raise withdrawn, refused events dismissed, links to charts ended before their time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from metering.database import TENANT_ROLE

revision = "0013"
down_revision = "0012"

OWN_ROWS = "tenant = current_setting('jauge.tenant', true)"


def upgrade() -> None:
    op.add_column(
        "quarantine",
        sa.Column(
            "dismissed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When somebody decided that it needs no mending.",
        ),
    )
    op.add_column("quarantine", sa.Column("dismissed_by", sa.Text(), nullable=True))
    op.add_column("quarantine", sa.Column("dismissed_why", sa.Text(), nullable=True))
    op.create_table(
        "embed_ending",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column(
            "ended_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="Links made until then show nothing.",
        ),
        sa.Column("ended_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("embed_ending_tenant_fkey")),
        sa.PrimaryKeyConstraint("tenant", name=op.f("embed_ending_pkey")),
        comment="Administrations that have ended their links to charts before their time.",
    )
    withdraw_raises()


def withdraw_raises() -> None:
    """An administration may ask, and take back what isn't decided; it changes nothing else of a request."""
    op.drop_constraint(op.f("raise_request_state_check"), "raise_request")
    op.create_check_constraint(
        op.f("raise_request_state_check"), "raise_request", "state IN ('pending', 'approved', 'refused', 'withdrawn')"
    )
    op.execute("DROP POLICY own_rows ON raise_request")
    op.execute(f"CREATE POLICY own_rows ON raise_request FOR SELECT TO {TENANT_ROLE} USING ({OWN_ROWS})")
    op.execute(
        f"CREATE POLICY asking ON raise_request FOR INSERT TO {TENANT_ROLE} "
        f"WITH CHECK ({OWN_ROWS} AND state = 'pending')"
    )
    op.execute(
        f"CREATE POLICY withdrawing ON raise_request FOR UPDATE TO {TENANT_ROLE} "
        f"USING ({OWN_ROWS} AND state = 'pending') WITH CHECK ({OWN_ROWS} AND state = 'withdrawn')"
    )
    op.execute(f"GRANT UPDATE (state, decided_by, decided_at) ON raise_request TO {TENANT_ROLE}")
