"""The door for Envoy: gRPC in the API's own process and event loop, beside HTTP."""

import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import grpc
import grpc.aio
import structlog

from metering.catalog.tokens import Doorkeeper
from metering.envoy.certificates import Certificates, credentials_of
from metering.envoy.messages import (
    OVER_LIMIT,
    SERVING,
    HealthRequest,
    HealthResponse,
    RateLimitRequest,
    RateLimitResponse,
)
from metering.envoy.service import RateLimits
from metering.errors import JaugeError
from metering.identity import Role

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
HEALTH = "grpc.health.v1.Health"

ROLES: tuple[Role, ...] = ("gateway", "operator")
CALL_BYTES_MAX = 64 * 1024
CALLS_MAX = 2_000
"""Calls under way at once; beyond them Envoy is told RESOURCE_EXHAUSTED."""

STOP_S_MAX = 10
"""Calls under way at the end have so long to finish."""

STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""Status of an error of ours to that of gRPC."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def serving(
    address: str, limits: RateLimits, doorkeeper: Doorkeeper, certificates: Certificates | None = None
) -> AsyncIterator[int]:
    """Answer Envoy at an address (`HOST:PORT`; port 0 takes a free one, and tells it) as long as the block runs.

    certificates: without them, without TLS. Raises: RuntimeError if the address can't be had, OSError if the
    certificates can't be used.
    """
    options = [
        ("grpc.max_receive_message_length", CALL_BYTES_MAX),
        ("grpc.so_reuseport", 0),  # who starts a second server on a port must be told
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS_MAX)
    server.add_generic_rpc_handlers(_handlers(_Calls(limits, doorkeeper)))
    port: int
    if certificates is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials_of(certificates))
    await server.start()
    log.info("envoy_served", port=port, tls=certificates is not None)
    try:
        yield port
    finally:
        await server.stop(STOP_S_MAX)


class _Calls:
    def __init__(self, limits: RateLimits, doorkeeper: Doorkeeper) -> None:
        self._limits = limits
        self._doorkeeper = doorkeeper

    async def should_rate_limit(self, call: Any, context: Any) -> Any:
        """Envoy's question; a gateway's token is in the call's metadata, as `authorization`."""
        started_ns = time.perf_counter_ns()
        try:
            await self._admit(dict(context.invocation_metadata()).get("authorization"))
            response = await self._limits.answer(call)
        except JaugeError as error:
            code, detail = STATUS_CODES[error.status], error.detail
        except Exception as error:  # what gRPC would tell of it, and log, can quote the request
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("fault", error=type(error).__name__, where=f"{Path(frame.filename).name}:{frame.lineno}")
            code, detail = grpc.StatusCode.INTERNAL, "A fault of the service; its log has it."
        else:
            duration_us = (time.perf_counter_ns() - started_ns) // 1000
            log.info("rate_limit", is_over=response.overall_code == OVER_LIMIT, duration_us=duration_us)
            return response
        log.info("rate_limit", status=code.name)
        return await context.abort(code, detail)

    async def check(self, call: Any, context: Any) -> Any:
        """Health: who answers serves, since plans say what runs while the stores are away."""
        if call.service not in {"", SERVICE}:
            await context.abort(grpc.StatusCode.NOT_FOUND, "No such service.")
        return HealthResponse(status=SERVING)

    async def _admit(self, authorization: str | None) -> None:
        if self._doorkeeper.is_known(authorization):
            self._doorkeeper.admit(authorization, *ROLES)
        else:
            await anyio.to_thread.run_sync(self._doorkeeper.admit, authorization, *ROLES)


def _handlers(calls: _Calls) -> tuple[grpc.GenericRpcHandler, ...]:
    limit = grpc.unary_unary_rpc_method_handler(
        calls.should_rate_limit, RateLimitRequest.FromString, RateLimitResponse.SerializeToString
    )
    health = grpc.unary_unary_rpc_method_handler(
        calls.check, HealthRequest.FromString, HealthResponse.SerializeToString
    )
    return (
        grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": limit}),
        grpc.method_handlers_generic_handler(HEALTH, {"Check": health}),
    )
