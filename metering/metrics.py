"""Figures about the service itself, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("jauge_events_total", "Events offered to the ledger.", ["channel", "outcome"])
BATCH_SECONDS = Histogram(
    "jauge_ledger_batch_seconds",
    "Time to write one batch durably.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_ROWS = Histogram(
    "jauge_ledger_batch_rows", "Rows written in one batch.", buckets=(1, 10, 100, 1_000, 2_500, 5_000, 10_000, 20_000)
)
WAITING = Gauge("jauge_ledger_waiting_events", "Events that wait for the ledger in this process.")
VERIFIED = {
    name: Gauge(f"jauge_{name}_verified", f"1 if the last verification of the {name} found nothing, else 0.")
    for name in ("ledger", "carbon")
}
RECONCILED = Gauge("jauge_reconciled", "1 if the last reconciliation of the month found no difference, else 0.")
DRIFT = Gauge("jauge_reconciliation_drift", "Sums of the month that differ between two places.", ["place", "against"])
STREAM_PENDING = Gauge("jauge_stream_entries", "Entries of the stream that are yet to be written.")
