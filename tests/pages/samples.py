"""Readings for the page tests: what a ledger might answer, made without one. Deterministic."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from random import Random
from typing import Any

from metering.rules.periods import PARIS, bucket_starts
from metering.tables import ROLLUP_SUMS
from reports.frame import Frame
from reports.notices import News, Notice, Retirement
from reports.selection import FILTERS, Selection
from reports.usage import UsageQuestion, UsageRow
from reports.usage_page import Reading

TODAY = date(2026, 10, 5)
FRAME = Frame("fr", {"fr": "/?lang=fr", "en": "/?lang=en"})
"""Of a page that stands alone."""

NOW = datetime(2026, 10, 5, 9, 30, tzinfo=UTC)
FIRST_HOUR = datetime(2026, 6, 1, 6, tzinfo=UTC)
LAST_HOUR = datetime(2026, 10, 5, 9, tzinfo=UTC)
RECORDED_AT = datetime(2026, 10, 5, 9, 29, 12, tzinfo=UTC)

MODELS = (
    *("mistral-small-3.2-24b", "albert-large", "qwen3-coder-30b", "whisper-large-v3", "bge-m3", "deepseek-ocr"),
    *("gemma-3-27b", "bge-reranker-v2", "ministral-8b", "llama-3.3-70b", "tiny-test"),
)
TENANTS = ("dinum", "education", "finances", "interieur", "sante")
CHOICES = {
    "tenant": TENANTS,
    "model": MODELS,
    "operation": ("chat", "embedding", "transcription"),
    "project": ("assistant", "courrier"),
}
assert set(CHOICES) == set(FILTERS)


def quantities(**known: int | None) -> dict[str, int | None]:
    """Quantities of a row; those not given are unknown, except counts of requests, which the ledger always has."""
    certain = {"requests": 0, "requests_error": 0, "requests_aborted": 0, "requests_refused": 0}
    return {**dict.fromkeys(ROLLUP_SUMS), **certain, "uncounted_requests": 0, **known}


def row(start: datetime, group: dict[str, str | None] | None = None, **known: int | None) -> UsageRow:
    return UsageRow(start, group or {}, quantities(**known))


def selection(**changes: Any) -> Selection:
    """September 2026 by day and model, in French, unless changed."""
    return Selection(**{"first": date(2026, 9, 1), "last": date(2026, 9, 30), "language": "fr", **changes})


def reading(rows: Sequence[UsageRow]) -> Reading:
    return Reading(
        rows=rows, newest=(184_203, RECORDED_AT), bounds=(FIRST_HOUR, LAST_HOUR), choices=CHOICES, news=News(NOW)
    )


NOTHING_RECORDED = Reading(rows=(), newest=None, bounds=None, choices=dict.fromkeys(FILTERS, ()), news=News(NOW))

NEWS = News(
    NOW,
    notices=(
        Notice(
            "incident", "Réponses lentes", "Slow answers", "Les conversations attendent.\nLa cause est cherchée.",
            "Chats wait.\nThe cause is being looked for.", datetime(2026, 10, 5, 8, tzinfo=UTC), None,
        ),
        Notice(
            "maintenance", "Mise à jour", "Update", "Le service sera arrêté.", "The service will be down.",
            datetime(2026, 10, 10, 20, tzinfo=UTC), datetime(2026, 10, 11, 4, tzinfo=UTC),
        ),
        Notice(
            "information", "Nouvelle page", "New page", "Une page d’avis.", "A page of notices.",
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC), None,
        ),
    ),
    retirements=(
        Retirement("model", "albert-small-2024", "albert-small", datetime(2026, 11, 1, 11, tzinfo=UTC)),
        Retirement("category", "openweight-moderation", None, datetime(2026, 12, 31, 23, tzinfo=UTC)),
    ),
)  # fmt: skip
"""One of everything that readers can be told."""


def platform_rows(question: UsageQuestion) -> Iterator[UsageRow]:
    """Usage of a platform with working days and nights; transcriptions have audio and no tokens."""
    random = Random(7)
    name = question.group_by[0] if question.group_by else None
    values: tuple[str | None, ...] = {"model": MODELS, "tenant": TENANTS, None: (None,)}.get(
        name, tuple(CHOICES.get(name or "", ("u-1", "u-2", "u-3")))
    )
    if name in {"user", "project"}:
        values = (*values, None)
    for start in bucket_starts(question.start, question.end, question.bucket or "day", PARIS):
        if start > NOW:
            return
        local = start.astimezone(PARIS)
        load = 0.25 if question.bucket != "month" and local.weekday() >= 5 else 1.0
        if question.bucket == "hour":
            load *= 0.08 if 8 <= local.hour <= 19 else 0.01
        for index, value in enumerate(values):
            requests = int(load * random.uniform(0.7, 1.3) * 5_200 / (1 + index) ** 1.15)
            if requests:
                yield _row_of(start, {name: value} if name else {}, requests, random)


def _row_of(start: datetime, group: dict[str, str | None], requests: int, random: Random) -> UsageRow:
    value = next(iter(group.values()), None)
    failed = {
        "requests_error": requests // 90,
        "requests_aborted": requests // 140,
        "requests_refused": requests // 400,
    }
    if value == "whisper-large-v3":
        return row(start, group, requests=requests, audio_ms=requests * random.randint(40_000, 90_000), **failed)
    if value == "tiny-test":
        return row(start, group, requests=requests)
    uncounted = 3 if start.astimezone(PARIS).day in {9, 17} else 0
    output = None if value == "bge-m3" else requests * random.randint(150, 420)
    return row(
        start,
        group,
        requests=requests,
        input_tokens=requests * random.randint(800, 1_600),
        output_tokens=output,
        uncounted_requests=uncounted,
        **failed,
    )
