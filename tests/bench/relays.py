"""A gateway with and without the middleware, and a provider behind it: applications that uvicorn serves as processes.

Environment: UPSTREAM_URL, JAUGE_URL, JAUGE_TOKEN, JAUGE_SPOOL, JAUGE_DATABASE_URL, JAUGE_REDIS_URL.
"""

from os import environ
from pathlib import Path
from typing import Any

from metering.client import AsyncJauge
from metering.client.clients import AsyncGateway
from metering.direct import DirectJauge
from metering.gateways.asgi import JaugeMiddleware
from tests.gateways.gateway import make_gateway
from tests.gateways.upstream import Upstream


def upstream() -> Any:
    """A provider that streams at once."""
    return Upstream()


def bare() -> Any:
    """A gateway that nobody meters."""
    return make_gateway(environ["UPSTREAM_URL"])


def over_http() -> Any:
    """The same, metered by the client over HTTP."""
    return _metered(AsyncJauge(environ["JAUGE_URL"], environ["JAUGE_TOKEN"], **_options()))


def direct() -> Any:
    """The same, metered by the client beside the stores."""
    return _metered(DirectJauge(environ["JAUGE_DATABASE_URL"], environ["JAUGE_REDIS_URL"], **_options()))


def _metered(client: AsyncGateway) -> Any:
    return JaugeMiddleware(bare(), client=client)


def _options() -> Any:
    return {"source": "bench", "spool": Path(environ["JAUGE_SPOOL"])}
