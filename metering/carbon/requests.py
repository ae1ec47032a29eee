"""The requests of an hour, as the ledger knows them now: corrected, and without those that are void."""

import io
from datetime import datetime, timedelta

import polars as pl
import sqlalchemy as sa

from metering.carbon.attribution import REQUESTS_SCHEMA
from metering.carbon.due import REQUEST_MAX
from metering.database import raw
from metering.ledger.rows import INSTANT, VOID
from metering.rules.quantities import QUANTITIES
from metering.tables import CARBON_KEYS, ledger_series

COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "audio_ms", "embedding_inputs", "images", "pages")
"""What the energy of a request may depend on."""
assert set(COUNTS) <= set(QUANTITIES)

_COLUMNS = ("series", "occurred_at", "queue_ms", "first_token_at", "ended_at", "kind", "uncounted_requests", *COUNTS)
_SCHEMA = {
    "identity": pl.String(),
    "original": pl.String(),
    **{name: pl.String() if name.endswith("_at") else pl.Int64() for name in _COLUMNS},
}
_IN_FLIGHT = """
    COPY (
        SELECT identity, coalesce(corrects, identity), {columns} FROM ledger_entry
        WHERE occurred_at >= '{oldest}' AND occurred_at < '{end}' AND (ended_at > '{start}' OR occurred_at >= '{start}')
    ) TO STDOUT (FORMAT csv)
"""


def read_requests(connection: sa.Connection, hour: datetime) -> pl.DataFrame:
    """Requests in flight at some time of the hour: REQUESTS_SCHEMA, their keys (CARBON_KEYS), counts and `status`.

    Requests that were refused never reached a model, and are not among them.
    """
    entries = _copied(connection, hour)
    if (entries["kind"] != 0).any():
        entries = _corrected(entries)
    queue = pl.duration(milliseconds=pl.col("queue_ms").fill_null(0))
    requests = entries.join(_series(connection, entries), on="series").filter(pl.col("status") != "refused")
    return requests.select(
        pl.col("original").str.replace_all("-", "").str.decode("hex").alias("identity"),
        pl.col("occurred_at").alias("admitted_at"),
        pl.min_horizontal(pl.col("occurred_at") + queue, "ended_at").alias("started_at"),
        "first_token_at",
        "ended_at",
        pl.col("uncounted_requests").cast(REQUESTS_SCHEMA["uncounted_requests"]),
        *COUNTS,
        *CARBON_KEYS,
        "deployment",
        "status",
    )


def _copied(connection: sa.Connection, hour: datetime) -> pl.DataFrame:
    query = _IN_FLIGHT.format(
        columns=", ".join(_COLUMNS), oldest=hour - REQUEST_MAX, start=hour, end=hour + timedelta(hours=1)
    )
    with raw(connection).cursor() as cursor, cursor.copy(query.encode()) as copy:
        text = b"".join(copy)
    rows = pl.read_csv(io.BytesIO(text), has_header=False, schema=_SCHEMA)
    instants = pl.col("occurred_at", "first_token_at", "ended_at")
    return rows.with_columns(instants.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us").cast(INSTANT))


def _corrected(entries: pl.DataFrame) -> pl.DataFrame:
    """Requests with their corrections added; those that are void are gone."""
    added = (*COUNTS, "uncounted_requests")
    first = [pl.col(name).sort_by("kind").first() for name in entries.columns if name not in {"original", *added}]
    sums = [pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum()).alias(name) for name in added]
    void = (pl.col("kind") == VOID).any().alias("is_void")
    grouped = entries.group_by("original").agg(*first, *sums, void)
    return grouped.filter(~pl.col("is_void")).select(entries.columns)


def _series(connection: sa.Connection, entries: pl.DataFrame) -> pl.DataFrame:
    """Keys, deployment and status of the series that occur."""
    model = sa.func.coalesce(ledger_series.c.model_served, ledger_series.c.model_requested).label("model")
    named = ("tenant", "project", "user", "api_key", "operation", "deployment", "status")
    wanted = entries["series"].unique().to_list()
    rows = connection.execute(
        sa.select(ledger_series.c.number, model, *(ledger_series.c[name] for name in named)).where(
            ledger_series.c.number == sa.any_(sa.literal(wanted, sa.ARRAY(sa.Integer)))
        )
    )
    schema = {"series": pl.Int64(), "model": pl.String(), **dict.fromkeys(named, pl.String())}
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
