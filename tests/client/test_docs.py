"""The code that the documentation shows, run."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.client.conftest import DIGEST, Platform, until
from tests.quotas.workers import consuming

PAGE = Path(__file__).parents[2] / "docs" / "gateway-integration.md"


@dataclass
class Client:
    """Who called the gateway."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.answers.append((status, headers))

    async def send(self, chunk: Any) -> None:
        self.chunks.append(chunk)


async def upstream(_question: Any, *, max_tokens: int) -> AsyncIterator[Any]:
    assert max_tokens == 1_000
    for _ in range(3):
        yield SimpleNamespace(tokens=4, usage={"prompt_tokens": 8, "completion_tokens": 12, "total_tokens": 20})


@pytest.mark.parametrize("opener", ["open_jauge", "open_direct"])
def test_the_example_serves_refuses_and_records(platform: Platform, opener: str) -> None:
    section = PAGE.read_text().partition("## From Python")[2].partition("\n## ")[0]
    shown: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(code, shown)
    stores = platform.services.stores
    places = {"open_jauge": (platform.url, platform.token), "open_direct": (stores.database_url, stores.redis_url)}

    async def gateway(client: Client) -> None:
        async with shown[opener](*places[opener], platform.spool) as jauge:
            for key in (DIGEST, "0" * 64):
                question = SimpleNamespace(model="small", tokens=9)
                await shown["serve"](jauge, key, question, upstream, client)

    client = Client()
    asyncio.run(gateway(client))
    assert [status for status, _headers in client.answers] == [200, 401]
    assert "x-ratelimit-remaining-tokens" in client.answers[0][1]
    assert len(client.chunks) == 3
    with consuming(platform.services):
        until(platform.entries)
    (entry,) = platform.entries()
    assert (entry["input_tokens"], entry["output_tokens"], entry["status"]) == (8, 12, "ok")
