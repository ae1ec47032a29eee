"""Energy, emission factors and the ledger of carbon."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

TENANT_ROLE = "jauge_tenant"

APPEND_ONLY = (
    "energy_batch", "energy_reading", "emission_factor", "carbon_batch", "carbon_entry", "carbon_gpu", "carbon_weight"
)  # fmt: skip

GRANTS = {
    "carbon_batch": ("SELECT (seq, recorded_at, hour, method)", None),
    "carbon_entry": ("SELECT", "tenant = current_setting('jauge.tenant', true)"),
    "carbon_hour": ("SELECT", None),
    "emission_factor": ("SELECT", None),
    "site": ("SELECT", None),
}
"""What the role of an administration may read, and which rows; None: every row."""


def upgrade() -> None:
    create_tables()
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE TRIGGER hold_catalog BEFORE INSERT OR UPDATE OR DELETE ON site "
        "FOR EACH STATEMENT EXECUTE FUNCTION hold_catalog()"
    )
    op.execute(
        "CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON site "
        "FOR EACH ROW EXECUTE FUNCTION record_change('id', '')"
    )
    for table in (*APPEND_ONLY, "site"):
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    for table, (privileges, rows) in GRANTS.items():
        op.execute(f"GRANT {privileges} ON {table} TO {TENANT_ROLE}")
        if rows is not None:
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY own_rows ON {table} TO {TENANT_ROLE} USING ({rows})")


def create_tables() -> None:
    op.create_table(
        "carbon_batch",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("method", sa.Text(), nullable=False, comment="Version of the method."),
        sa.Column("ledger_seq", sa.BigInteger(), nullable=False, comment="Last batch of the ledger that was known."),
        sa.Column("energy_seq", sa.BigInteger(), nullable=False, comment="Last batch of readings that was known."),
        sa.Column("factor_number", sa.BigInteger(), nullable=False, comment="Last emission factor that was known."),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column(
            "sums",
            postgresql.ARRAY(sa.Numeric()),
            nullable=False,
            comment="Per summed column; null where none is known.",
        ),
        sa.Column("rows_digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the rows."),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the previous hash and this header."),
        sa.PrimaryKeyConstraint("seq", name=op.f("carbon_batch_pkey")),
        comment="The chain of carbon: one link each time an hour is posted.",
    )
    op.create_table(
        "carbon_cursor",
        sa.Column("id", sa.Text(), server_default="carbon", nullable=False),
        sa.Column("ledger_seq", sa.BigInteger(), nullable=False),
        sa.Column("energy_seq", sa.BigInteger(), nullable=False),
        sa.Column("factor_number", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 'carbon'", name=op.f("carbon_cursor_one_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("carbon_cursor_pkey")),
        comment="How far hours are marked as due.",
    )
    op.create_table(
        "carbon_hour",
        sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("is_due", sa.Boolean(), nullable=False, comment="Something about it is new since it was posted."),
        sa.Column("batch_seq", sa.BigInteger(), nullable=True, comment="Batch that posted it last."),
        sa.PrimaryKeyConstraint("hour", name=op.f("carbon_hour_pkey")),
        comment="Hours that something is known of, and whether they are to be posted.",
    )
    op.create_table(
        "carbon_weight",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("gpu_model", sa.Text(), nullable=False),
        sa.Column("valid_from", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column(
            "weights", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="See rules.carbon.weights."
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="prior or calibrated."),
        sa.Column(
            "report",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Windows, and errors in and out of the sample.",
        ),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("carbon_weight_pkey")),
        comment="Weights of work by model and GPU, as calibrated; of several the last that is valid counts.",
    )
    op.create_table(
        "emission_factor",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("starts_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ends_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="Exclusive."),
        sa.Column("ugco2e_per_kwh", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("is_last_resort", sa.Boolean(), nullable=False, comment="Counts only where no other factor does."),
        sa.Column("imported_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('location', 'market')", name=op.f("emission_factor_kind_check")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("emission_factor_period_check")),
        sa.CheckConstraint("ugco2e_per_kwh >= 0", name=op.f("emission_factor_value_check")),
        sa.PrimaryKeyConstraint("number", name=op.f("emission_factor_pkey")),
        sa.UniqueConstraint(
            "zone",
            "kind",
            "starts_at",
            "ends_at",
            "source",
            "version",
            name=op.f("emission_factor_zone_kind_starts_at_ends_at_source_version_key"),
        ),
        comment="Emissions of a kilowatt-hour by zone and slot; of several, the one imported last counts.",
    )
    op.create_index("emission_factor_zone_starts_at_idx", "emission_factor", ["zone", "starts_at"], unique=False)
    op.create_table(
        "energy_batch",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column(
            "sums",
            postgresql.ARRAY(sa.Numeric()),
            nullable=False,
            comment="Per summed column; null where none is known.",
        ),
        sa.Column("rows_digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the rows."),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the previous hash and this header."),
        sa.PrimaryKeyConstraint("seq", name=op.f("energy_batch_pkey")),
        comment="The readings' chain: one link a transaction.",
    )
    op.create_table(
        "site",
        sa.Column("id", sa.Text(), nullable=False, comment="The `site` of readings."),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "zone", sa.Text(), nullable=False, comment="Zone of the electricity grid, as emission factors name it."
        ),
        sa.Column(
            "contract", sa.Text(), nullable=True, comment="Zone of the market-based factors; null: none is known."
        ),
        sa.Column("pue_ppm", sa.Integer(), nullable=False, comment="Power usage effectiveness, in millionths."),
        sa.Column("pue_lower_ppm", sa.Integer(), nullable=False),
        sa.Column("pue_upper_ppm", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "pue_lower_ppm >= 1000000 AND pue_ppm BETWEEN pue_lower_ppm AND pue_upper_ppm", name=op.f("site_pue_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("site_pkey")),
        comment="Where nodes are: their grid, and the efficiency of the building.",
    )
    op.create_table(
        "carbon_entry",
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("part", sa.Text(), nullable=False, comment="use: of requests; idle, unallocated: of nobody."),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("api_key", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.Column("tier", sa.Text(), nullable=False, comment="Quality of the data, A to D; U: unknown."),
        sa.Column(
            "is_reversal", sa.Boolean(), nullable=False, comment="Takes back an earlier entry: its sums are negative."
        ),
        sa.Column("factors", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="Emission factors used."),
        sa.Column("requests", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("gpu_energy_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("energy_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("energy_lower_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("energy_upper_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("location_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("location_lower_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("location_upper_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("market_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("embodied_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("embodied_lower_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("embodied_upper_ng", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.CheckConstraint("part IN ('use', 'idle', 'unallocated')", name=op.f("carbon_entry_part_check")),
        sa.CheckConstraint("tier IN ('A', 'B', 'C', 'D', 'U')", name=op.f("carbon_entry_tier_check")),
        sa.ForeignKeyConstraint(["batch_seq"], ["carbon_batch.seq"], name=op.f("carbon_entry_batch_seq_fkey")),
        comment="Energy and emissions by hour, agent, key and model. Null: unknown.",
    )
    op.create_index("carbon_entry_hour_idx", "carbon_entry", ["hour"], unique=False)
    op.create_index("carbon_entry_tenant_hour_idx", "carbon_entry", ["tenant", "hour"], unique=False)
    op.create_table(
        "carbon_gpu",
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("gpu_model", sa.Text(), nullable=True),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("energy_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("energy_lower_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column("energy_upper_uj", sa.Numeric(precision=38, scale=0), nullable=True),
        sa.Column(
            "host_uj",
            sa.Numeric(precision=38, scale=0),
            nullable=True,
            comment="Its part of the energy of the node beside its GPUs.",
        ),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), nullable=False, comment="Faults that were met."),
        sa.Column(
            "idle_constant_mw", sa.BigInteger(), nullable=True, comment="Idle power that was used; null: none is known."
        ),
        sa.Column(
            "idle_powers_mw",
            postgresql.ARRAY(sa.BigInteger()),
            nullable=False,
            comment="Mean power of each minute without requests.",
        ),
        sa.ForeignKeyConstraint(["batch_seq"], ["carbon_batch.seq"], name=op.f("carbon_gpu_batch_seq_fkey")),
        sa.PrimaryKeyConstraint("batch_seq", "node", "gpu", name=op.f("carbon_gpu_pkey")),
        comment="What each GPU's meter said of an hour; of several batches the last counts.",
    )
    op.create_index("carbon_gpu_hour_idx", "carbon_gpu", ["hour"], unique=False)
    op.create_table(
        "energy_reading",
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("identity", sa.UUID(as_uuid=False), nullable=False, comment="Of (source, id), see rules.chain."),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="The node's wall clock."),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column(
            "epoch", sa.Text(), nullable=False, comment="Boot or driver epoch: counters start again with another."
        ),
        sa.Column("monotonic_us", sa.BigInteger(), nullable=True, comment="The node's monotonic clock, in the epoch."),
        sa.Column("energy_mj", sa.BigInteger(), nullable=True, comment="Counter of the GPU since its epoch began."),
        sa.Column("power_mw", sa.BigInteger(), nullable=True),
        sa.Column("power_limit_mw", sa.BigInteger(), nullable=True),
        sa.Column("gpu_model", sa.Text(), nullable=True, comment="Data sheet, see rules.carbon.hardware."),
        sa.Column("deployment", sa.Text(), nullable=True, comment="Replica that the GPU serves; null: none."),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("host_energy_mj", sa.BigInteger(), nullable=True, comment="Counter of the node, see host_source."),
        sa.Column(
            "host_source",
            sa.Text(),
            nullable=True,
            comment="wall: at the plug, GPUs included; rapl: processors and memory.",
        ),
        sa.ForeignKeyConstraint(["batch_seq"], ["energy_batch.seq"], name=op.f("energy_reading_batch_seq_fkey")),
        sa.PrimaryKeyConstraint("identity", name=op.f("energy_reading_pkey")),
        comment="Readings of GPUs' counters, as nodes sent them.",
    )
    op.create_index("energy_reading_at_idx", "energy_reading", ["at"], unique=False)
    op.create_index("energy_reading_node_gpu_at_idx", "energy_reading", ["node", "gpu", "at"], unique=False)
    op.create_index("energy_reading_batch_seq_idx", "energy_reading", ["batch_seq"], unique=False)
    op.add_column(
        "deployment", sa.Column("accelerators", sa.Integer(), nullable=True, comment="Of a replica; null: not said.")
    )
    op.add_column(
        "model",
        sa.Column(
            "kv_bytes_per_token",
            sa.BigInteger(),
            nullable=True,
            comment="Bytes that attention keeps of a token of context.",
        ),
    )
    op.create_check_constraint(op.f("deployment_accelerators_check"), "deployment", "accelerators > 0")
