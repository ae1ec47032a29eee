"""The application, served on a free port of the loopback."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

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
    environment = os.environ | {
        "JAUGE_DATABASE_URL": services.stores.database_url,
        "JAUGE_REDIS_URL": services.stores.redis_url,
        "JAUGE_LOG_LEVEL": "warning",
    }
    server = subprocess.Popen([sys.executable, "-m", "metering", "serve", "--port", str(port)], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _await(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:
                assert json.load(answer) == {"status": "ready"}
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
