"""The demo's simulated gateway: a plausible platform of the State, its usage events, and their sending.

`population` says who calls and what answers; `traffic` turns that into events, and does no I/O; `asking` asks before
each request whether it may run; `sending` brings events to both doors as a gateway would; `nodes` are the GPUs that
some of the requests ran on, with counters that an agent reads. Nothing of the ledger is imported here: what is made is
only bytes, and the ledger meets them as it meets any gateway's.
"""

from metering.simulator.asking import QuotaDesk
from metering.simulator.doors import HttpDoor, SendError, StreamDoor
from metering.simulator.nodes import NODES_SOURCE, Counter, Nodes
from metering.simulator.population import ADMINISTRATIONS, APPLICATIONS, MODELS, Administration, Application, Model
from metering.simulator.sending import SimulatedGateway, Tally
from metering.simulator.traffic import history, live

__all__ = [
    "ADMINISTRATIONS",
    "APPLICATIONS",
    "MODELS",
    "NODES_SOURCE",
    "Administration",
    "Application",
    "Counter",
    "HttpDoor",
    "Model",
    "Nodes",
    "QuotaDesk",
    "SendError",
    "SimulatedGateway",
    "StreamDoor",
    "Tally",
    "history",
    "live",
]
