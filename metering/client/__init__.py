"""The client for gateways in Python: holds before a request, truth after it, and nothing that was used gets lost."""

from metering.client.clients import AsyncHold, AsyncJauge, Hold, Jauge
from metering.client.protocol import Refused, SpoolFull
from metering.events.providers import Provider

__all__ = ["AsyncHold", "AsyncJauge", "Hold", "Jauge", "Provider", "Refused", "SpoolFull"]
