"""The client for gateways in Python: holds before a request, truth after it, and nothing that was used gets lost."""

from metering.client.clients import AsyncGateway, AsyncHold, AsyncJauge, Hold, Jauge
from metering.client.protocol import Estimated, Refused, SpoolFull
from metering.events.providers import Provider

__all__ = ["AsyncGateway", "AsyncHold", "AsyncJauge", "Estimated", "Hold", "Jauge", "Provider", "Refused", "SpoolFull"]
