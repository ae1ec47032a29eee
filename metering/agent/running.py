"""The agent at work: a reading at every interval, kept on disk until the service has it."""

import threading
import time
from pathlib import Path

import msgspec

from metering.agent.memory import save
from metering.agent.reading import Reader
from metering.agent.troubles import Troubles
from metering.client.protocol import Carrier
from metering.client.sending import Sender
from metering.client.spool import NoRoom, Spool
from metering.events.envelope import EnergyEvent

SPOOL_BYTES_MAX = 256 * 1024 * 1024
"""About three weeks of eight GPUs, at a reading each half a minute."""

LOOK_S = 1.0
"""How often the file of deployments is looked at."""

CLOSE_S = 10.0
"""How long closing waits for what is spooled to be sent; the rest is sent by the next agent on the folder."""


class Agent:
    """Reads and sends. It is the only one on its folder; what one before it left there is sent as well."""

    def __init__(self, reader: Reader, folder: Path, carrier: Carrier, troubles: Troubles) -> None:
        self._reader = reader
        self._folder = folder
        self._troubles = troubles
        self._spool = Spool(folder, bytes_max=SPOOL_BYTES_MAX)
        self._sender = Sender(self._spool, carrier)

    def read(self) -> int:
        """Take a reading; how many GPUs were read."""
        events = self._reader.events()
        if events:
            self._troubles.end("no_gpu")
        else:
            self._troubles.begin("no_gpu", detail="no GPU found: nothing to send")
        for event in events:
            self._keep(event)
        save(self._folder, self._reader.memory, self._troubles)
        self._sender.wake()
        return len(events)

    def _keep(self, event: EnergyEvent) -> None:
        """Spool an event. One that finds no room is dropped; the counter that the next one has is of its time too."""
        try:
            self._spool.keep_room()
            self._spool.append(msgspec.json.encode(event))
        except NoRoom:
            self._troubles.begin("spool_full")
        except OSError as error:
            self._troubles.begin("spool_unwritable", error=error.strerror or type(error).__name__)
        else:
            self._troubles.end("spool_full")
            self._troubles.end("spool_unwritable")

    def run(self, stop: threading.Event, interval_s: float) -> None:
        """Read at every interval, and when deployments change, until told to stop; then once more."""
        due_s = time.monotonic()
        while not stop.is_set():
            due_s = max(due_s + interval_s, time.monotonic())  # what was missed, as in a sleep, stays so
            while (left_s := due_s - time.monotonic()) > 0 and not stop.wait(min(left_s, LOOK_S)):
                if self._reader.deployments.refresh():
                    self.read()
            self.read()

    def close(self) -> bool:
        """Send what is spooled, for a few seconds; whether all of it was sent."""
        self._sender.close(CLOSE_S)
        return not any(path.stat().st_size for path in self._folder.glob("*.*.ndjson"))
