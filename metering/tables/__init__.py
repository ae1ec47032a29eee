"""Every table, once. Migrations create them; a test holds the two together."""

from metering.tables.base import Column, Timestamp, metadata
from metering.tables.catalog import (
    KEYS,
    acceptance,
    access_request,
    account,
    api_key,
    catalog_change,
    convention,
    deployment,
    experiment,
    limit_override,
    model,
    model_alias,
    model_category,
    notice,
    person,
    plan,
    platform,
    project,
    raise_request,
    retirement,
    tenant,
    terms,
    token,
)
from metering.tables.ledger import (
    DAILY_KEYS,
    HOURLY_KEYS,
    ROLLUP_SUMS,
    SERIES_FIELDS,
    SERIES_REQUIRED,
    STATUS_COUNTS,
    ledger_batch,
    ledger_entry,
    ledger_identity,
    ledger_series,
    quarantine,
    usage_daily,
    usage_hourly,
)
from metering.tables.outbox import outbox, webhook
from metering.tables.quotas import quota_epoch

__all__ = [
    "DAILY_KEYS", "HOURLY_KEYS", "KEYS", "ROLLUP_SUMS", "SERIES_FIELDS", "SERIES_REQUIRED", "STATUS_COUNTS", "Column",
    "Timestamp", "acceptance", "access_request", "account", "api_key", "catalog_change", "convention", "deployment",
    "experiment", "ledger_batch", "ledger_entry", "ledger_identity", "ledger_series", "limit_override", "metadata",
    "model", "model_alias", "model_category", "notice", "outbox", "person", "plan", "platform", "project",
    "quarantine", "quota_epoch", "raise_request", "retirement", "tenant", "terms", "token", "usage_daily", "usage_hourly", "webhook",
]  # fmt: skip
