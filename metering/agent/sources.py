"""What any source says of a GPU, whoever reads the counters."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class GpuSample(NamedTuple):
    """What one GPU's counters say now; None: not told.

    place: its number in the node. node: the machine it is in; None: this one. driver: version, which counters end with.
    """

    uuid: str
    place: int | None
    model: str | None
    node: str | None
    driver: str
    energy_mj: int | None
    power_mw: int | None
    power_limit_mw: int | None


class Source(Protocol):
    """Who reads the counters of GPUs. is_local: of this machine, so that its clock and its boot are theirs."""

    is_local: bool

    def read(self) -> Sequence[GpuSample]:
        """What the GPUs say now; none where none is found, or nobody answers."""
