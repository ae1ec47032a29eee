"""Events from a Valkey/Redis stream: read by a consumer group, acknowledged once the ledger has committed.

An entry has a field `body` (an event, an array or NDJSON) and, if that is compressed, `encoding` (gzip or zstd). A
consumer that dies leaves its entries pending; another takes them over. An entry may thus be read twice, and counts
once. Entries are deleted when they are acknowledged, so the stream holds only what is yet to be written.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import redis
import structlog

from metering.errors import JaugeError, Unavailable
from metering.events.ahead import CallsAhead
from metering.events.decoding import Decoded, Framing, decode, decompress
from metering.events.intake import Intake, IntakeAnswer
from metering.events.refusals import Refusal
from metering.metrics import STREAM_PENDING
from metering.valkey import outages

GROUP = "jauge-ledger"
ENTRIES_PER_READ = 200
ENTRY_BYTES_MAX = 1024 * 1024
"""Bytes of one entry, decompressed; with `ENTRIES_PER_READ` it bounds the memory of a read to 200 MiB."""
READ_WAIT_MS = 1000
CALL_EVENTS = 2_000
"""Events of how many entries go to the ledger together: most entries hold one, and a call has a cost of its own."""
CALLS_AHEAD = 3
"""Calls that are checked while the ledger writes the one before."""
BACK_OFF_S = 1.0
CONSUMER_FORGOTTEN_MS = 3_600_000

Entries = list[tuple[bytes, dict[bytes, bytes]]]

log = structlog.get_logger(__name__)


class StreamConsumer:
    """One consumer of the group; runs until told to stop. Several may run, in any processes."""

    def __init__(self, client: redis.Redis, intake: Intake, *, stream: str, claim_ms: int, events_max: int) -> None:
        self._client = client
        self._intake = intake
        self._stream = stream
        self._claim_ms = claim_ms
        self._events_max = events_max
        self._name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
        self._claimed_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set; outages of either store are waited out.

        A fault of ours leaves its entry in the stream, to be met again: an event is never given up unwritten.
        """
        ready = False
        while not stop.is_set():
            try:
                if not ready:
                    self._join_group()
                    ready = True
                for entries in self._next():
                    self._write(entries)
            except Unavailable as error:
                log.warning("ledger_unavailable", code=error.code)
                stop.wait(BACK_OFF_S)
            except redis.ResponseError as error:
                ready = False  # the group is gone with the server's data: join again
                log.warning("stream_refused", error=str(error).partition(" ")[0])
                stop.wait(BACK_OFF_S)
            except outages() as error:
                log.warning("stream_unavailable", error=type(error).__name__)
                stop.wait(BACK_OFF_S)

    def _join_group(self) -> None:
        with contextlib.suppress(redis.ResponseError):  # it exists
            self._client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        consumers: Any = self._client.xinfo_consumers(self._stream, GROUP)
        for consumer in consumers:
            if consumer["pending"] == 0 and consumer["idle"] > CONSUMER_FORGOTTEN_MS:
                self._client.xgroup_delconsumer(self._stream, GROUP, consumer["name"])

    def _next(self) -> Iterator[Entries]:
        """Entries that a silent consumer left, now and then; its own that an outage left; then new ones."""
        if time.monotonic() - self._claimed_at > self._claim_ms / 2000:
            self._claimed_at = time.monotonic()
            claimed: Any = self._client.xautoclaim(
                self._stream, GROUP, self._name, min_idle_time=self._claim_ms, count=ENTRIES_PER_READ
            )
            yield claimed[1]
            STREAM_PENDING.set(self._client.xlen(self._stream))
        for start, wait_ms in (("0", None), (">", READ_WAIT_MS)):
            found: Any = self._client.xreadgroup(
                GROUP, self._name, {self._stream: start}, count=ENTRIES_PER_READ, block=wait_ms
            )
            yield from found.values() if isinstance(found, dict) else (stream[1] for stream in found or [])

    def _write(self, entries: Entries) -> None:
        """Write the events of some entries; one with a fault stays behind alone."""
        if not entries:
            return
        try:
            self._write_together(entries)
        except Unavailable:
            raise
        except outages():
            raise
        except Exception as error:
            if len(entries) == 1:
                bare = RuntimeError(type(error).__name__)  # messages of drivers can quote values
                log.error("fault", error=type(error).__name__, exc_info=bare.with_traceback(error.__traceback__))
                return
            for entry in entries:
                self._write([entry])

    def _write_together(self, entries: Entries) -> None:
        """Write the events of some entries; acknowledge and delete those written, whatever befalls the rest."""
        done: list[bytes] = []

        def written(ids: list[bytes], answer: IntakeAnswer) -> None:
            done.extend(ids)
            if not answer.is_whole:
                log.warning("events_refused", channel="stream", rejected=answer.rejected, conflict=answer.conflict)

        calls = CallsAhead(self._intake, "stream", written, calls_max=CALLS_AHEAD)
        try:
            for ids, events in self._calls(entries):
                calls.offer(ids, events)
            calls.finish()
        finally:
            self._acknowledge(done)

    def _calls(self, entries: Entries) -> Iterator[tuple[list[bytes], Decoded]]:
        """Events of several entries at a time, with the entries' ids."""
        ids: list[bytes] = []
        events: Decoded = []
        for entry_id, fields in entries:
            decoded = self._decode(fields) if fields else []  # it was deleted while it was pending
            if events and len(events) + len(decoded) > CALL_EVENTS:
                yield ids, events
                ids, events = [], []
            ids.append(entry_id)
            events += decoded
        yield ids, events

    def _acknowledge(self, ids: list[bytes]) -> None:
        if not ids:
            return
        with self._client.pipeline(transaction=True) as acknowledge:
            acknowledge.xack(self._stream, GROUP, *ids)
            acknowledge.xdel(self._stream, *ids)
            acknowledge.execute()

    def _decode(self, fields: dict[bytes, bytes]) -> Decoded:
        """Events of an entry; an entry that can't be read is one refusal."""
        try:
            body = decompress(fields.get(b"body", b""), fields.get(b"encoding", b"").decode("ascii"), ENTRY_BYTES_MAX)
            return decode(body, _framing(body), self._events_max)
        except (JaugeError, UnicodeDecodeError) as error:
            return [(Refusal("unreadable_entry", error.code if isinstance(error, JaugeError) else "encoding"), b"")]


def _framing(body: bytes) -> Framing:
    """An array is JSON; anything else is read line by line, which a single event is as well."""
    return "json" if body.lstrip()[:1] == b"[" else "ndjson"
