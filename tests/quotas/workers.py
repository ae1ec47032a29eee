"""What a worker does, in threads of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from metering.events.stream import StreamConsumer
from metering.quotas.settling import Settler
from metering.services import Services


@contextmanager
def consuming(services: Services) -> Iterator[None]:
    """Events of the stream go to the ledger."""
    settings = services.settings
    consumer = StreamConsumer(
        services.redis(), services.intake, stream=settings.stream_name, claim_ms=500, events_max=1_000
    )
    with _running(consumer.run):
        yield


@contextmanager
def settling(services: Services) -> Iterator[None]:
    """What the ledger has goes to the counters; in the end, all of it."""
    settler = Settler(services.counters())
    with _running(settler.run):
        yield
    while settler.round(datetime.now(UTC)):
        pass


@contextmanager
def _running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
