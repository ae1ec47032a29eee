"""What is measured of gateways: how much later the first token comes through the middleware.

Gateway, provider, Jauge and client are processes of their own. Requests go to the gateway as it is, metered over HTTP,
and metered beside the stores, in turn, so that what disturbs one disturbs all; figures are medians of differences.
"""

import hashlib
import http.client
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from metering.catalog.apply import apply, read_file
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.services import Services
from metering.tables import api_key
from tests.bench.measures import Line
from tests.bench.quotas import CATALOGUE
from tests.bench.serving import application, served
from tests.people import add_agent

LATER_MS_MAX = 3
WARM = 5
"""Turns before those that count."""
PAUSE_S = 0.02
"""Between requests, so that what one leaves to do after its answer isn't the next one's."""

KEY = "sk-bench"
WAYS = {"over_http": "over HTTP", "direct": "beside the stores"}
CHAT = json.dumps(
    {
        "model": "small", "stream": True, "max_tokens": 100, "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Tu aides des agents publics."},
            {"role": "user", "content": "Résume la circulaire en trois phrases. " * 20},
        ],
    }
).encode()  # fmt: skip


def first_token(services: Services, turns: int) -> list[Line]:
    """How much later a stream's first token comes through the middleware, by each kind of client."""
    with _gateways(services) as urls:
        clients = {name: _Client(url) for name, url in urls.items()}
        times: dict[str, list[float]] = {name: [] for name in clients}
        for turn in range(WARM + turns):
            for name in random.sample(list(clients), len(clients)):
                waited_ms = clients[name].first_token_ms()
                if turn >= WARM:
                    times[name].append(waited_ms)
                time.sleep(PAUSE_S)
    bare = times.pop("bare")
    lines = []
    for name, found in times.items():
        later_ms = statistics.median(ours - alone for ours, alone in zip(found, bare, strict=True))
        work = f"first token later by, metered {WAYS[name]} ({statistics.median(bare):.1f} ms without)"
        lines.append(Line(work, later_ms, "ms", "budget", LATER_MS_MAX, later_ms / LATER_MS_MAX, "≤ 1"))
    return lines


@contextmanager
def _gateways(services: Services) -> Iterator[dict[str, str]]:
    """Addresses of the gateway as it is, and metered by each kind of client."""
    _add_key(services)
    token = add_token(services.engine, "bench-relay", "gateway")
    with ExitStack() as stack:
        environment = {
            "UPSTREAM_URL": stack.enter_context(application("tests.bench.relays:upstream")),
            "JAUGE_URL": stack.enter_context(served(services)),
            "JAUGE_TOKEN": token,
            "JAUGE_SPOOL": stack.enter_context(tempfile.TemporaryDirectory()),
            "JAUGE_DATABASE_URL": services.stores.database_url,
            "JAUGE_REDIS_URL": services.stores.redis_url,
        }
        yield {
            name: stack.enter_context(application(f"tests.bench.relays:{name}", environment))
            for name in ("bare", *WAYS)
        }


def _add_key(services: Services) -> None:
    with transaction(services.engine) as connection:
        apply(connection, read_file(CATALOGUE.encode()))
    add_agent(services, "bench", "member", "u-bench")
    digest = hashlib.sha256(KEY.encode()).digest()
    row = {"id": "k-bench", "tenant": "bench", "account": "u-bench", "name": "k", "prefix": "sk-", "digest": digest}
    with transaction(services.engine) as connection:
        connection.execute(api_key.insert().values(row))


class _Client:
    """Someone who talks to one gateway, over one connection."""

    def __init__(self, url: str) -> None:
        self._http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def first_token_ms(self) -> float:
        """How long the first chunk of a stream takes to come; the rest of it is read as well."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        started = time.perf_counter()
        self._http.request("POST", "/v1/chat/completions", CHAT, headers)
        answer = self._http.getresponse()
        first = answer.readline()
        waited_s = time.perf_counter() - started
        rest = answer.read()
        assert (answer.status, b'"content"' in first, rest[-8:]) == (200, True, b"[DONE]\n\n"), first
        return waited_s * 1000
