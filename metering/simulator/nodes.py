"""Two simulated nodes with GPUs: counters that go on for ever, and whose power follows the requests of the gateway.

Eight H100 serve the replicas of two models; what the other models run on is read by nobody. A request is known when it
ends, so what a GPU drew in a minute is made up some minutes later. No I/O, and the clock is given: who starts again
says where the counters stood, and they go on from there.

The power of a GPU (W): its own idle power with a model loaded, WORK_W for the share of a minute in which its replica
was in use, STEP_W for each request in flight, PREFILL_J for each token read. The magnitudes are those of an H100 that
decodes one or a few requests at once; the formula is ours, and shows nothing but a GPU that is busy when requests are.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import exp
from threading import Lock

import msgspec

from metering.simulator.population import MODELS

NODES_SOURCE = "demo/nodes"
SITE = "demo"
EPOCH = "boot-20250901"
BOOTED_AT = datetime(2025, 9, 1, tzinfo=UTC)

GPU_MODEL = "H100-SXM"
POWER_LIMIT_MW = 700_000
WORK_W = 160.0
STEP_W = 12.0
PREFILL_J = 0.03
HOST_W = 440.0
"""Processors and memory of a node, by RAPL."""

KNOWN_AFTER = timedelta(minutes=5)
"""When all requests of a minute have ended: the longest of them takes less."""
PAST = timedelta(days=30)
PACE_MINUTES = 10
"""Minutes between readings of the past, of which the last day is read by the minute, as the present is."""
DENSE = timedelta(days=1)
QUIET_HOUR = 2
"""Hour (UTC) that is read by the minute on every day: idle power is told by minutes without a request."""
CHUNK_READINGS = 4_000
MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of a node and the replica that it serves, alone or with others."""

    node: str
    uuid: str
    deployment: str
    shared_by: int
    idle_w: float
    has_host_counter: bool


class Counter(msgspec.Struct, frozen=True):
    """Where a GPU's counters stood: when, energy of the GPU and of its node in mJ (None: the node counts none)."""

    at: datetime
    energy_mj: int
    host_energy_mj: int | None


def _gpus() -> Iterator[Gpu]:
    large, small = MODELS["albert-large"].deployments, MODELS["albert-small"].deployments
    places = [(name, 2) for name in large] + [(name, 1) for name in small]
    slots = [(name, count) for name, count in places for _ in range(count)]
    for slot, (deployment, count) in enumerate(slots):
        node = f"demo-gpu-{slot // 4 + 1}"
        digest = zlib.crc32(f"{node}/{slot}".encode())
        uuid = f"GPU-{digest:08x}-demo-{slot}"
        # Only the first node's system lets its counters of processors and memory be read.
        yield Gpu(node, uuid, deployment, count, 90 + digest % 31, has_host_counter=slot < 4)


GPUS = tuple(_gpus())
_DEPLOYMENTS = frozenset(gpu.deployment for gpu in GPUS)


class _Data(msgspec.Struct):
    deployment: str | None = None
    status: str = ""
    started_at: datetime | None = None
    queue_ms: int = 0
    input_tokens: int | None = None
    cached_input_tokens: int | None = None


class _Request(msgspec.Struct):
    id: str
    time: datetime
    data: _Data


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Load:
    """What a replica did in a minute: seconds of requests in flight, tokens read."""

    seconds: float = 0
    tokens: float = 0


class Nodes:
    """The nodes' counters. One thread tells what the gateway did, another one reads."""

    def __init__(self, since: Mapping[str, Counter], *, seed: int = 1) -> None:
        """since: last reading of each GPU by its UUID, where there is one."""
        self._counters = dict(since)
        self._seed = seed
        self._loads: dict[tuple[str, int], _Load] = {}
        self._seen: set[str] = set()
        self._lock = Lock()

    def watch(self, events: Iterable[bytes]) -> None:
        """Take note of requests that the gateway ran; one that is told again changes nothing."""
        with self._lock:
            for event in events:
                request = _decode(event)
                runs = request.data.deployment in _DEPLOYMENTS and request.data.status != "refused"
                if runs and request.id not in self._seen:
                    self._seen.add(request.id)
                    self._add(request)

    def readings(self, now: datetime) -> Iterator[list[bytes]]:
        """Events, as JSON, of readings that fell due since the last ones, in order of time; whole minutes a chunk."""
        newest = _minute(now - KNOWN_AFTER)
        counters = {gpu: _caught_up(gpu, self._counters.get(gpu.uuid), now) for gpu in GPUS}
        chunk: list[bytes] = []
        for minute in range(min(_minute(one.at) for one in counters.values()) + 1, newest + 1):
            with self._lock:
                powers = {gpu: self._power_mw(gpu, minute) for gpu in GPUS}
            counters = {gpu: self._advanced(gpu, one, minute, powers[gpu]) for gpu, one in counters.items()}
            if _is_read(minute, newest):
                chunk += [_reading(gpu, one, powers[gpu]) for gpu, one in counters.items()]
            if len(chunk) >= CHUNK_READINGS:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
        self._counters = {gpu.uuid: one for gpu, one in counters.items()}
        with self._lock:
            self._loads = {place: load for place, load in self._loads.items() if place[1] >= newest}
            self._seen.clear()

    def _add(self, request: _Request) -> None:
        """Spread a request over the minutes in which it was in flight; what it read, evenly."""
        data = request.data
        assert data.deployment is not None
        starts_s = ((data.started_at or request.time) + timedelta(milliseconds=data.queue_ms)).timestamp()
        ends_s = max(request.time.timestamp(), starts_s + 0.001)
        tokens = (data.input_tokens or 0) - (data.cached_input_tokens or 0)
        for minute in range(int(starts_s) // MINUTE_S, int(ends_s) // MINUTE_S + 1):
            seconds = min(ends_s, (minute + 1) * MINUTE_S) - max(starts_s, minute * MINUTE_S)
            load = self._loads.setdefault((data.deployment, minute), _Load())
            load.seconds += seconds
            load.tokens += tokens * seconds / (ends_s - starts_s)

    def _advanced(self, gpu: Gpu, counter: Counter, minute: int, power_mw: int) -> Counter:
        """Counters at the beginning of a minute, from those a minute before and the power in between."""
        at = datetime.fromtimestamp(minute * MINUTE_S, UTC)
        if at <= counter.at:
            return counter
        host_mj = counter.host_energy_mj
        if host_mj is not None:
            host_mj += int(HOST_W * 1_000 * MINUTE_S * self._noise(gpu.node, minute))
        return Counter(at, counter.energy_mj + power_mw * MINUTE_S, host_mj)

    def _power_mw(self, gpu: Gpu, minute: int) -> int:
        """Mean power in the minute before one."""
        load = self._loads.get((gpu.deployment, minute - 1), _Load())
        in_flight = load.seconds / MINUTE_S
        # Calls that come by chance leave a share of e^-n of the time without any.
        watts = gpu.idle_w + WORK_W * (1 - exp(-in_flight)) + STEP_W * in_flight
        watts += PREFILL_J * load.tokens / MINUTE_S / gpu.shared_by
        return min(int(watts * 1_000 * self._noise(gpu.uuid, minute)), POWER_LIMIT_MW)

    def _noise(self, name: str, minute: int) -> float:
        """Within 2 % of 1, and always the same for a minute."""
        return 1 + (zlib.crc32(f"{self._seed}/{name}/{minute}".encode()) % 401 - 200) / 10_000


def _reading(gpu: Gpu, counter: Counter, power_mw: int) -> bytes:
    """The event of a reading."""
    data: dict[str, object] = {
        "node": gpu.node,
        "gpu": gpu.uuid,
        "epoch": EPOCH,
        "monotonic_us": (counter.at - BOOTED_AT) // timedelta(microseconds=1),
        "energy_mj": counter.energy_mj,
        "power_mw": power_mw,
        "power_limit_mw": POWER_LIMIT_MW,
        "gpu_model": GPU_MODEL,
        "deployment": gpu.deployment,
        "site": SITE,
    }
    if counter.host_energy_mj is not None:
        data |= {"host_energy_mj": counter.host_energy_mj, "host_source": "rapl"}
    return _encode(
        {
            "specversion": "1.0",
            "type": "jauge.energy.v1",
            "source": NODES_SOURCE,
            "id": f"{gpu.uuid}-{counter.at:%Y%m%dT%H%M}",
            "time": counter.at,
            "data": data,
        }
    )


def _minute(at: datetime) -> int:
    """Number of the minute since 1970 that an instant is in."""
    return int(at.timestamp()) // MINUTE_S


def _caught_up(gpu: Gpu, counter: Counter | None, now: datetime) -> Counter:
    """Counters from which readings go on: those of the last one, or of a GPU that did nothing until PAST ago."""
    if counter is None:
        counter = Counter(BOOTED_AT, 0, 0 if gpu.has_host_counter else None)
    oldest = datetime.fromtimestamp((_minute(now - PAST) - 1) * MINUTE_S, UTC)
    if counter.at >= oldest:
        return counter
    seconds = int((oldest - counter.at).total_seconds())
    host_mj = counter.host_energy_mj
    return Counter(
        oldest,
        counter.energy_mj + int(gpu.idle_w * 1_000) * seconds,
        None if host_mj is None else host_mj + int(HOST_W * 1_000) * seconds,
    )


def _is_read(minute: int, newest: int) -> bool:
    at = datetime.fromtimestamp(minute * MINUTE_S, UTC)
    is_dense = newest - minute <= DENSE // timedelta(minutes=1) or at.hour == QUIET_HOUR
    return is_dense or minute % PACE_MINUTES == 0
