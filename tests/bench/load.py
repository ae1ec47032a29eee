"""Synthetic usage for the benchmarks: as frames, and as events in JSON."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from metering.ledger.rows import EVENT, FRAME_SCHEMA, INSTANT
from metering.ledger.series import Series, SeriesRegistry

TENANTS = ("dinum", "interieur", "education", "finances", "sante")
MODELS = ("albert-small", "albert-large", "albert-code")
USERS = 20
MONTH = datetime(2026, 9, 1, tzinfo=UTC)
DAYS = 30


def all_series() -> list[Series]:
    """5 administrations × 2 projects × 3 models × 20 users: 600 series."""
    return [
        Series(
            source="bench", tenant=tenant, project=f"{tenant}-p{user % 2}", user=f"{tenant}-u{user}",
            api_key=f"{tenant}-k{user % 4}", application=None, operation="chat", endpoint=None, model_requested=model,
            model_served=model, category="chat", deployment=f"{model}-r{user % 2}", streamed=True, status="ok",
            http_status=200, finish_reason="stop", error_code=None, count_source="provider",
        )
        for tenant in TENANTS for model in MODELS for user in range(USERS)
    ]  # fmt: skip


def frames(
    registry: SeriesRegistry, tenants: dict[str, int], *, rows: int, count: int, hours: int = 1, seed: int = 1,
    series: list[Series] | None = None, first: datetime = MONTH,
) -> Iterator[pl.DataFrame]:  # fmt: skip
    """Frames of new entries; each covers `hours` hours, one after another from `first` on, round 30 days.

    series: what they are of; those of `all_series` unless others are given.
    """
    series = series or all_series()
    numbers = registry.numbers(series)
    number_of = np.array([numbers[one] for one in series], dtype=np.int32)
    tenant_of = np.array([tenants[one.tenant] for one in series], dtype=np.int32)
    draw = np.random.default_rng(seed)
    start_us = int(first.timestamp()) * 1_000_000
    hour_us = 3_600_000_000
    for turn in range(count):
        chosen = draw.integers(0, len(series), rows)
        begins_us = start_us + (turn * hours % (DAYS * 24)) * hour_us
        started = begins_us + np.sort(draw.integers(0, hours * hour_us - 20_000_000, rows))
        yield _frame(draw, number_of[chosen], tenant_of[chosen], started)


def _frame(draw: Any, series: Any, tenants: Any, started: Any) -> pl.DataFrame:
    rows = len(series)
    random = os.urandom(16 * rows)
    identities = [random[at : at + 16] for at in range(0, len(random), 16)]
    columns: dict[str, Any] = {
        "identity": identities,
        "series": series,
        "tenant": tenants,
        "occurred_at": started,
        "first_token_at": started + 300_000,
        "ended_at": started + 300_000 + draw.integers(0, 15_000_000, rows),
        "requests": np.ones(rows, dtype=np.int64),
        "input_tokens": draw.integers(1, 8_000, rows),
        "output_tokens": draw.integers(1, 1_500, rows),
        "kind": np.full(rows, EVENT, dtype=np.int16),
        "uncounted_requests": np.zeros(rows, dtype=np.int16),
        "event_id": [f"chatcmpl-{identity.hex()}" for identity in identities],
    }
    return pl.DataFrame(
        [
            pl.Series(name, columns[name], dtype=pl.Int64 if kind == INSTANT else kind).cast(kind)
            if name in columns
            else pl.Series(name, [None], dtype=kind).new_from_index(0, rows)
            for name, kind in FRAME_SCHEMA.items()
        ]
    )


def bodies(*, events: int, count: int) -> list[bytes]:
    """Calls of `events` new usage events each, as JSON arrays."""
    draw = np.random.default_rng(2)
    made = []
    for call in range(count):
        base = MONTH + timedelta(hours=call % (DAYS * 24))
        tokens = draw.integers(1, 4_000, (events, 2)).tolist()
        random = os.urandom(8).hex()
        made.append(msgspec.json.encode([_event(f"{random}-{at}", at, base, *tokens[at]) for at in range(events)]))
    return made


def _event(event_id: str, at: int, base: datetime, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    tenant, model, user = TENANTS[at % 5], MODELS[at % 3], at % USERS
    started = base + timedelta(milliseconds=at * 30)
    return {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "bench", "id": event_id,
        "time": started + timedelta(seconds=9), "datacontenttype": "application/json",
        "data": {
            "tenant": tenant, "project": f"{tenant}-p{user % 2}", "user": f"{tenant}-u{user}",
            "api_key": f"{tenant}-k{user % 4}", "operation": "chat", "model_requested": model, "model_served": model,
            "category": "chat", "deployment": f"{model}-r{user % 2}", "streamed": True, "started_at": started,
            "first_token_at": started + timedelta(milliseconds=300), "status": "ok", "http_status": 200,
            "finish_reason": "stop", "requests": 1, "input_tokens": input_tokens, "output_tokens": output_tokens,
            "count_source": "provider",
        },
    }  # fmt: skip
