"""What the page about gateways in Python shows, run."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, asgi
from litestar.middleware import DefineMiddleware

from metering.gateways.asgi import JaugeMiddleware
from metering.gateways.refusing import anthropic_body_of, body_of
from metering.gateways.requests import ENDPOINTS
from tests.gateways.conftest import World, told
from tests.gateways.upstream import ANSWER_TOKENS, serving

PAGE = (Path(__file__).parents[2] / "docs" / "gateways" / "asgi.md").read_text()
CHAT = {"model": "small", "messages": [{"role": "user", "content": "un deux"}]}


def test_the_example_serves_and_records(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = world.ground.platform
    for name, value in (("URL", platform.url), ("TOKEN", platform.token), ("SPOOL", platform.spool)):
        monkeypatch.setenv(f"JAUGE_{name}", str(value))
    (code,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    shown: dict[str, Any] = {}
    exec(code, shown)
    shown["app"].mount("/", world.ground.upstream)
    with serving(shown["app"]) as url:
        served = World(world.ground, world.tenant, world.key, url)
        assert served.stream(CHAT)[-1] == "[DONE]"
        refused = served.post("chat/completions", CHAT | {"messages": ["x" * 400_000]})
    (entry, _refused) = world.recorded(2)
    assert told(entry, "status", "input_tokens", "output_tokens", "count_source") == (
        "ok",
        2,
        ANSWER_TOKENS,
        "provider",
    )
    assert refused.status_code == 429
    assert f"\n{refused.text}\n" in PAGE


def test_litestar_is_wrapped_as_shown(world: World) -> None:
    jauge = world.ground.platform.ajauge()
    upstream = asgi("/", is_mount=True, copy_scope=True)(world.ground.upstream)
    app = Litestar([upstream], middleware=[DefineMiddleware(JaugeMiddleware, client=jauge)])
    with serving(app) as url:
        assert World(world.ground, world.tenant, world.key, url).stream(CHAT)[-1] == "[DONE]"
    asyncio.run(jauge.aclose())
    assert [entry["output_tokens"] for entry in world.recorded(1)] == [ANSWER_TOKENS]


def test_the_table_of_endpoints_is_complete() -> None:
    table = PAGE.partition("<!-- endpoints -->")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \| (\w+) \|", table, re.MULTILINE)
    assert {path: operation for paths, operation in rows for path in re.findall(r"`(.+?)`", paths)} == ENDPOINTS


def test_a_refusal_looks_as_shown() -> None:
    for shape in (body_of, anthropic_body_of):
        assert f"\n{shape(429, 'limit_reached').decode()}\n" in PAGE
