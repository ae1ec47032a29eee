"""Which deployment runs on which GPU: as the command line says, or a file that an orchestrator writes."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import yaml

from metering.agent.sources import GpuSample
from metering.agent.troubles import Troubles
from metering.events.envelope import is_name


class DeploymentsFile(msgspec.Struct, forbid_unknown_fields=True):
    """Names of deployments, each with its GPUs: UUIDs, or places in the node from 0."""

    deployments: dict[str, list[str | int]]


def by_gpu(deployments: Iterable[tuple[str, Iterable[str | int]]]) -> Mapping[str, str]:
    """Deployments by GPU. Raises: ValueError for a GPU that has two, or a deployment whose name isn't one."""
    found: dict[str, str] = {}
    for name, gpus in deployments:
        if not is_name(name):
            raise ValueError("a deployment's name is up to 128 letters, digits and . _ : / + ~ = -")
        for gpu in map(str, gpus):
            if found.setdefault(gpu, name) != name:
                raise ValueError("a GPU serves one deployment")
    return found


def parse_assignment(text: str) -> tuple[str, list[str]]:
    """`NAME=GPU,GPU` as a deployment and its GPUs. Raises: ValueError."""
    name, _equals, gpus = text.partition("=")
    listed = [gpu.strip() for gpu in gpus.split(",") if gpu.strip()]
    if not listed:
        raise ValueError("expected NAME=GPU[,GPU]")
    return name.strip(), listed


def _read(file: Path) -> Mapping[str, str]:
    """Deployments by GPU, as a file says. Raises: OSError, ValueError, YAMLError, ValidationError."""
    read = msgspec.convert(yaml.safe_load(file.read_bytes()), DeploymentsFile)
    return by_gpu(read.deployments.items())


class Deployments:
    """What is known of deployments. A file is read again when it changes; one that can't be read changes nothing."""

    def __init__(self, stated: Mapping[str, str], file: Path | None, troubles: Troubles) -> None:
        self._by_gpu = stated
        self._file = file
        self._troubles = troubles
        self._version: tuple[int, ...] | None = None

    def refresh(self) -> bool:
        """Read the file if it has changed; whether another deployment is known for some GPU."""
        if self._file is None:
            return False
        try:
            state = self._file.stat()
            version = (state.st_mtime_ns, state.st_size, state.st_ino)
            if version == self._version:
                return False
            known = _read(self._file)
        except (OSError, ValueError, yaml.YAMLError, msgspec.ValidationError) as error:
            self._troubles.begin("deployments_unreadable", error=type(error).__name__)
            return False
        self._version = version
        self._troubles.end("deployments_unreadable")
        changed = known != self._by_gpu
        self._by_gpu = known
        return changed

    def of(self, sample: GpuSample) -> str | None:
        """The deployment that a GPU serves, by its UUID or its place."""
        return self._by_gpu.get(sample.uuid) or self._by_gpu.get(str(sample.place))
