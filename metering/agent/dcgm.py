"""GPUs by NVIDIA's DCGM exporter, which tells them to Prometheus."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import httpx

from metering.agent.models import as_name, gpu_model
from metering.agent.sources import GpuSample
from metering.agent.troubles import Troubles

ENERGY_MJ = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
POWER_W = "DCGM_FI_DEV_POWER_USAGE"
POWER_LIMIT_W = "DCGM_FI_DEV_ENFORCED_POWER_LIMIT"
DRIVER_LABEL = "DCGM_FI_DRIVER_VERSION"

TIMEOUT_S = 10
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_Samples = dict[str, tuple[Mapping[str, str], dict[str, float]]]
"""By UUID: labels, and values by name."""


class DcgmExporter:
    """The exporter at an address; one on the loopback is this machine's. Raises: ValueError for no address."""

    def __init__(self, url: str, troubles: Troubles) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError("an exporter's page has an address as http://127.0.0.1:9400/metrics")
        self.is_local = parts.hostname in LOOPBACK
        self._url = url
        self._troubles = troubles
        self._http = httpx.Client(timeout=TIMEOUT_S)

    def read(self) -> Sequence[GpuSample]:
        try:
            answer = self._http.get(self._url)
            answer.raise_for_status()
            samples = list(parse(answer.text, is_local=self.is_local))
        except (httpx.HTTPError, ValueError) as error:
            self._troubles.begin("dcgm_unreadable", error=type(error).__name__)
            return []
        self._troubles.end("dcgm_unreadable")
        return samples


def parse(text: str, *, is_local: bool) -> Iterator[GpuSample]:
    """GPUs of a page of the exporter. Raises: ValueError where it is no such page."""
    for uuid, (labels, values) in _by_gpu(text).items():
        place = labels.get("gpu", "")
        energy_mj = values.get(ENERGY_MJ)
        yield GpuSample(
            uuid=uuid,
            place=int(place) if place.isdecimal() else None,
            model=gpu_model(labels.get("modelName", "")),
            node=None if is_local else as_name(labels.get("Hostname", "")),
            driver=labels.get(DRIVER_LABEL, "0"),
            energy_mj=None if energy_mj is None else round(energy_mj),
            power_mw=_milli(values.get(POWER_W)),
            power_limit_mw=_milli(values.get(POWER_LIMIT_W)),
        )


def _by_gpu(text: str) -> _Samples:
    """Samples of whole GPUs.

    A GPU has one counter. The exporter repeats it for each MIG instance and each container, so samples of one UUID are
    one sample; where they differ, as they were taken one after the other, the highest is the last.
    """
    found: _Samples = {}
    for name, labels, value in _samples(text):
        if name in {ENERGY_MJ, POWER_W, POWER_LIMIT_W} and (uuid := as_name(labels.get("UUID", ""))) and value >= 0:
            _labels, values = found.setdefault(uuid, (labels, {}))
            values[name] = max(value, values.get(name, value))
    return found


def _samples(text: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    """Name, labels and value of each sample; the parser adds to counters the suffix that the exporter leaves out."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - this source alone needs it

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name.removesuffix("_total"), sample.labels, sample.value


def _milli(value: float | None) -> int | None:
    return None if value is None else round(value * 1_000)
