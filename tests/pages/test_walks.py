"""Somebody new finds each answer within three clicks, in a real Chromium."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, expect

from metering.database import transaction
from metering.tables import CARBON_SUMS, carbon_batch, carbon_entry
from tests.pages.platforms import NOW, Platform
from tests.pages.tabs import signed_in
from tests.pages.walks import WALKS, Walker

ANSWERS = {
    "tokens": re.compile(r"\d+\s*jetons"),
    "emissions": re.compile(r"5,00\s*g\s*CO2e"),
    "key": re.compile(r"dans 4 jours"),
    "limit": re.compile(r"sans remise à zéro|à \d\d:\d\d"),
    "invoice": re.compile(r"\d,\d\d\s*€"),
}


@pytest.fixture(scope="module")
def posted(platform: Platform) -> Platform:
    """The platform with an hour of emissions: 2 g of use and 3 g of manufacture."""
    hour = (NOW - timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
    batch = {
        "seq": 1, "recorded_at": NOW, "hour": hour, "method": "1", "ledger_seq": 1, "energy_seq": 0,
        "factor_number": 0, "row_count": 1, "sums": [], "rows_digest": b"4" * 32, "hash": b"5" * 32,
    }  # fmt: skip
    entry = {
        "batch_seq": 1, "hour": hour, "part": "use", "tenant": "dinum", "project": "assistant", "user": "u-1",
        "model": "albert-large", "operation": "chat", "tier": "A", "is_reversal": False, "factors": [],
    }  # fmt: skip
    sums = dict.fromkeys(CARBON_SUMS, 10**9) | {"requests": 10, "location_ng": 2 * 10**9, "embodied_ng": 3 * 10**9}
    with transaction(platform.services.engine) as connection:
        connection.execute(carbon_batch.insert().values(batch))
        connection.execute(carbon_entry.insert().values(entry | sums))
    return platform


@pytest.mark.parametrize("question", WALKS)
def test_an_answer_is_three_clicks_away_at_most(browser: Browser, posted: Platform, question: str) -> None:
    context = signed_in(browser, posted.url, posted.manager, java_script_enabled=False)
    answer = WALKS[question](Walker(context.new_page(), posted.url).begin())
    expect(answer).to_be_visible()
    expect(answer).to_contain_text(ANSWERS[question])
    context.close()
