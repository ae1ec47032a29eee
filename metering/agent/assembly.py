"""An agent's reader put together from what the command line says."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metering.agent.dcgm import DcgmExporter
from metering.agent.deployments import Deployments, by_gpu
from metering.agent.epochs import boot_id
from metering.agent.memory import Memory
from metering.agent.models import as_name
from metering.agent.nvml import LocalGpus
from metering.agent.rapl import Rapl
from metering.agent.reading import Node, Reader
from metering.agent.sources import Source
from metering.agent.troubles import Troubles
from metering.events.envelope import is_name, is_source


@dataclass(frozen=True, slots=True)
class Options:
    """How a node is read.

    node: its name, of the machine if None. source: of events, the node's name if None. dcgm: address of an exporter's
    page; None: the driver is asked. stated, deployments_file: which deployments run on which GPUs.
    """

    node: str | None = None
    source: str | None = None
    site: str | None = None
    dcgm: str | None = None
    stated: Sequence[tuple[str, Sequence[str | int]]] = ()
    deployments_file: Path | None = None


def reader_for(options: Options, memory: Memory, troubles: Troubles) -> Reader:
    """The reader of a node. Raises: ValueError for names that aren't, or a GPU with two deployments."""
    name = options.node or as_name(platform.node()) or "node"
    node = Node(name, options.source or name, options.site, boot_id())
    if not (is_name(node.name) and is_source(node.source) and is_name(node.site or name)):
        raise ValueError("names of node, source and site are up to 128 letters, digits and . _ : / + ~ = -")
    deployments = Deployments(by_gpu(options.stated), options.deployments_file, troubles)
    gpus: Source = LocalGpus(troubles) if options.dcgm is None else DcgmExporter(options.dcgm, troubles)
    return Reader(node, gpus, deployments, Rapl(troubles), memory)
