"""Applications, served as processes on free ports of the loopback."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from metering.services import Services


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(services: Services) -> Iterator[str]:
    """URL of a `jauge serve` process on the same stores."""
    port = free_port()
    environment = {
        "JAUGE_DATABASE_URL": services.stores.database_url,
        "JAUGE_REDIS_URL": services.stores.redis_url,
        "JAUGE_LOG_LEVEL": "warning",
    }
    with _process(["metering", "serve", "--port", str(port)], environment):
        url = f"http://127.0.0.1:{port}"
        _await(lambda: _is_ready(f"{url}/readyz"))
        yield url


@contextmanager
def application(name: str, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """URL of an ASGI application, or of what a factory of this name makes."""
    port = free_port()
    options = ["--port", str(port), "--log-level", "error", "--no-access-log"]
    with _process(["uvicorn", name, *options], environment):
        _await(lambda: _answers(port))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _process(module: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    server = subprocess.Popen([sys.executable, "-m", *module], env={**os.environ, **environment})
    try:
        yield
    finally:
        server.terminate()
        server.wait(30)


def _await(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_there():
        assert time.monotonic() < deadline, "the server doesn't come up"
        time.sleep(0.1)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(json.load(answer) == {"status": "ready"})
    except OSError:
        return False


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
