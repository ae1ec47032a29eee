"""Energy, emission factors and the ledger of carbon.

`energy_*` and `carbon_*` but for `carbon_hour` and `carbon_cursor` only ever grow: a trigger refuses UPDATE, DELETE
and TRUNCATE. What is posted of an hour is changed by reversing it and posting again, so a sum over all entries of an
hour is what is known of it now, and a sum up to a batch is what was known then.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Column, Timestamp, metadata

CARBON_KEYS: tuple[str, ...] = ("tenant", "project", "user", "api_key", "model", "operation")
"""What an entry of carbon is posted for; idle and unallocated energy is the platform's, without a tenant."""

CARBON_SUMS: tuple[str, ...] = (
    "requests",
    "gpu_energy_uj",
    "energy_uj",
    "energy_lower_uj",
    "energy_upper_uj",
    "location_ng",
    "location_lower_ng",
    "location_upper_ng",
    "market_ng",
    "embodied_ng",
    "embodied_lower_ng",
    "embodied_upper_ng",
)
"""What an entry adds: energy of the GPUs alone, then of the facility (host and PUE included), then emissions."""


def _text(name: str, *, nullable: bool = False, comment: str | None = None) -> Column:
    return sa.Column(name, sa.Text, nullable=nullable, comment=comment)


def _count(name: str, *, comment: str | None = None) -> Column:
    return sa.Column(name, sa.BigInteger, comment=comment)


def _sum(name: str, *, comment: str | None = None) -> Column:
    return sa.Column(name, sa.Numeric(38, 0), comment=comment)


def _one_of(column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def _chained(name: str, *columns: Column, comment: str) -> sa.Table:
    """A chain of batches like the ledger's: a batch commits to its rows and to the batch before."""
    return sa.Table(
        name,
        metadata,
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", Timestamp, nullable=False),
        *columns,
        sa.Column("row_count", sa.Integer, nullable=False),
        sa.Column("sums", pg.ARRAY(sa.Numeric), nullable=False, comment="Per summed column; null where none is known."),
        sa.Column("rows_digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the rows."),
        sa.Column("hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the previous hash and this header."),
        comment=comment,
    )


energy_batch = _chained("energy_batch", comment="The readings' chain: one link a transaction.")

energy_reading = sa.Table(
    "energy_reading",
    metadata,
    sa.Column("batch_seq", sa.BigInteger, sa.ForeignKey("energy_batch.seq"), nullable=False),
    sa.Column("identity", pg.UUID(as_uuid=False), primary_key=True, comment="Of (source, id), see rules.chain."),
    _text("source"),
    _text("event_id"),
    sa.Column("at", Timestamp, nullable=False, comment="The node's wall clock."),
    _text("node"),
    _text("gpu"),
    _text("epoch", comment="Boot or driver epoch: counters start again with another."),
    _count("monotonic_us", comment="The node's monotonic clock, in the epoch."),
    _count("energy_mj", comment="Counter of the GPU since its epoch began."),
    _count("power_mw"),
    _count("power_limit_mw"),
    _text("gpu_model", nullable=True, comment="Data sheet, see rules.carbon.hardware."),
    _text("deployment", nullable=True, comment="Replica that the GPU serves; null: none."),
    _text("site", nullable=True),
    _count("host_energy_mj", comment="Counter of the node, see host_source."),
    _text("host_source", nullable=True, comment="wall: at the plug, GPUs included; rapl: processors and memory."),
    sa.Index("energy_reading_at_idx", "at"),
    sa.Index("energy_reading_node_gpu_at_idx", "node", "gpu", "at"),
    sa.Index("energy_reading_batch_seq_idx", "batch_seq"),
    comment="Readings of GPUs' counters, as nodes sent them.",
)

emission_factor = sa.Table(
    "emission_factor",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _text("zone"),
    _text("kind"),
    sa.Column("starts_at", Timestamp, nullable=False),
    sa.Column("ends_at", Timestamp, nullable=False, comment="Exclusive."),
    sa.Column("ugco2e_per_kwh", sa.BigInteger, nullable=False),
    _text("source"),
    _text("version"),
    sa.Column("is_last_resort", sa.Boolean, nullable=False, comment="Counts only where no other factor does."),
    sa.Column("imported_at", Timestamp, nullable=False, server_default=sa.func.now()),
    _text("author"),
    sa.UniqueConstraint("zone", "kind", "starts_at", "ends_at", "source", "version"),
    sa.CheckConstraint("starts_at < ends_at", name="period"),
    sa.CheckConstraint("ugco2e_per_kwh >= 0", name="value"),
    _one_of("kind", "location", "market"),
    sa.Index("emission_factor_zone_starts_at_idx", "zone", "starts_at"),
    comment="Emissions of a kilowatt-hour by zone and slot; of several, the one imported last counts.",
)

carbon_batch = _chained(
    "carbon_batch",
    sa.Column("hour", Timestamp, nullable=False),
    _text("method", comment="Version of the method."),
    sa.Column("ledger_seq", sa.BigInteger, nullable=False, comment="Last batch of the ledger that was known."),
    sa.Column("energy_seq", sa.BigInteger, nullable=False, comment="Last batch of readings that was known."),
    sa.Column("factor_number", sa.BigInteger, nullable=False, comment="Last emission factor that was known."),
    comment="The chain of carbon: one link each time an hour is posted.",
)

carbon_entry = sa.Table(
    "carbon_entry",
    metadata,
    sa.Column("batch_seq", sa.BigInteger, sa.ForeignKey("carbon_batch.seq"), nullable=False),
    sa.Column("hour", Timestamp, nullable=False),
    _text("part", comment="use: of requests; idle, unallocated: of nobody."),
    *(_text(name, nullable=True) for name in CARBON_KEYS),
    _text("tier", comment="Quality of the data, A to D; U: unknown."),
    sa.Column("is_reversal", sa.Boolean, nullable=False, comment="Takes back an earlier entry: its sums are negative."),
    sa.Column("factors", pg.ARRAY(sa.BigInteger), nullable=False, comment="Emission factors used."),
    *(_sum(name) for name in CARBON_SUMS),
    _one_of("part", "use", "idle", "unallocated"),
    _one_of("tier", "A", "B", "C", "D", "U"),
    sa.Index("carbon_entry_hour_idx", "hour"),
    sa.Index("carbon_entry_tenant_hour_idx", "tenant", "hour"),
    comment="Energy and emissions by hour, agent, key and model. Null: unknown.",
)

carbon_gpu = sa.Table(
    "carbon_gpu",
    metadata,
    sa.Column("batch_seq", sa.BigInteger, sa.ForeignKey("carbon_batch.seq"), primary_key=True),
    sa.Column("hour", Timestamp, nullable=False),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("gpu", sa.Text, primary_key=True),
    _text("deployment", nullable=True),
    _text("gpu_model", nullable=True),
    _text("site", nullable=True),
    _sum("energy_uj"),
    _sum("energy_lower_uj"),
    _sum("energy_upper_uj"),
    _sum("host_uj", comment="Its part of the energy of the node beside its GPUs."),
    _text("tier"),
    sa.Column("flags", pg.ARRAY(sa.Text), nullable=False, comment="Faults that were met."),
    sa.Column("idle_constant_mw", sa.BigInteger, comment="Idle power that was used; null: none is known."),
    sa.Column(
        "idle_powers_mw", pg.ARRAY(sa.BigInteger), nullable=False, comment="Mean power of each minute without requests."
    ),
    sa.Index("carbon_gpu_hour_idx", "hour"),
    comment="What each GPU's meter said of an hour; of several batches the last counts.",
)

carbon_weight = sa.Table(
    "carbon_weight",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _text("model"),
    _text("gpu_model"),
    sa.Column("valid_from", Timestamp, nullable=False),
    sa.Column("weights", pg.JSONB, nullable=False, comment="See rules.carbon.weights."),
    _text("source", comment="prior or calibrated."),
    sa.Column("report", pg.JSONB, nullable=False, comment="Windows, and errors in and out of the sample."),
    sa.Column("recorded_at", Timestamp, nullable=False, server_default=sa.func.now()),
    comment="Weights of work by model and GPU, as calibrated; of several the last that is valid counts.",
)

carbon_hour = sa.Table(
    "carbon_hour",
    metadata,
    sa.Column("hour", Timestamp, primary_key=True),
    sa.Column("is_due", sa.Boolean, nullable=False, comment="Something about it is new since it was posted."),
    sa.Column("batch_seq", sa.BigInteger, comment="Batch that posted it last."),
    comment="Hours that something is known of, and whether they are to be posted.",
)

carbon_cursor = sa.Table(
    "carbon_cursor",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, server_default="carbon"),
    sa.Column("ledger_seq", sa.BigInteger, nullable=False),
    sa.Column("energy_seq", sa.BigInteger, nullable=False),
    sa.Column("factor_number", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 'carbon'", name="one"),
    comment="How far hours are marked as due.",
)
