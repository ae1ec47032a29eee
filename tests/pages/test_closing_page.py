"""A month closed from its page: decided by a form, completed by the worker, its progress shown."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from metering import embedded
from metering.billing.closing import Closer
from tests.pages.closed import Platform, used_platform
from tests.pages.visitor import Visitor

OCTOBER = "/admin/months/2026-10?lang=fr"
SURE = {"month": "2026-10", "confirmed": "yes"}


@pytest.fixture
def platform(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with used_platform(servers, template, tmp_path_factory.mktemp("closing"), "closing") as opened:
        yield opened


def stopped_after(closer: Closer, documents: int) -> Closer:
    """A closer that dies once it has made so many documents."""
    made = []

    def render(*given: Any) -> Any:
        if len(made) == documents:
            raise KeyboardInterrupt
        made.append(given)
        return closer.render(*given)

    return replace(closer, render=render)


def test_a_month_is_decided_by_a_form_and_its_page_says_how_far_the_worker_is(platform: Platform) -> None:
    operator, closer = Visitor(platform.url, platform.operator), platform.services.closer()
    assert "Le brouillon est fait" in operator.send("/admin/months/draft", {"month": "2026-10"}).text
    begun = operator.send("/admin/months/final", SURE).text
    assert "La clôture est décidée" in begun
    assert "0 écrits sur 3" in begun
    assert "Clore le mois" not in begun
    with pytest.raises(KeyboardInterrupt):
        stopped_after(closer, 2).resume(datetime.now(UTC))
    assert "2 écrits sur 3" in operator.page(OCTOBER).text
    assert "La clôture est décidée" in operator.send("/admin/months/final", SURE).text  # twice is once
    assert closer.resume(datetime.now(UTC)) is not None
    done = operator.page(OCTOBER).text
    assert "3 écrits sur 3" in done
    assert "clos pour de bon" in done
    assert closer.resume(datetime.now(UTC)) is None


def test_who_does_not_wait_is_told_that_the_closing_goes_on(platform: Platform) -> None:
    final = f"{platform.url}/v1/admin/periods/2026-10/final"
    with httpx.Client(headers={"Authorization": f"Bearer {platform.operator}"}, timeout=60) as client:
        assert client.post(final, params={"wait": "false"}, json={}).json()["state"] == "finalising"
        assert client.post(final, json={}).json()["state"] == "final"
