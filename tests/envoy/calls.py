"""Envoy's calls, made by hand."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from metering.envoy.messages import OVER_LIMIT, HealthRequest, HealthResponse, RateLimitRequest, RateLimitResponse
from metering.envoy.serving import HEALTH, SERVICE

Told = Mapping[str, str | bytes]


def request_of(*descriptors: Mapping[str, Any], hits: int = 0, negative: bool = False) -> Any:
    """A RateLimitRequest. Of a descriptor, `hits` is its own addend; every other name is an entry's."""
    call = RateLimitRequest(hits_addend=hits)
    for told in descriptors:
        descriptor = call.descriptors.add(is_negative_hits=negative)
        for key, value in told.items():
            if key == "hits":
                descriptor.hits_addend.value = value
            else:
                descriptor.entries.add(key=key.encode(), value=value if isinstance(value, bytes) else value.encode())
    return call


class Caller:
    """A connection to the service."""

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self.metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._limit = channel.unary_unary(
            f"/{SERVICE}/ShouldRateLimit", RateLimitRequest.SerializeToString, RateLimitResponse.FromString
        )
        self._health = channel.unary_unary(
            f"/{HEALTH}/Check", HealthRequest.SerializeToString, HealthResponse.FromString
        )

    def ask(self, *descriptors: Mapping[str, Any], **options: Any) -> Any:
        """Call it; raises grpc.RpcError."""
        return self.send(request_of(*descriptors, **options))

    def send(self, call: Any, timeout_s: float = 30) -> Any:
        return self._limit(call, metadata=self.metadata, timeout=timeout_s)

    def health(self, service: str = "") -> Any:
        return self._health(HealthRequest(service=service), timeout=30)


@contextmanager
def connected(port: int, token: str | None, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Caller]:
    """credentials: for TLS, as localhost."""
    address = f"127.0.0.1:{port}"
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    opened = (
        grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials, options)
    )
    with opened as channel:
        yield Caller(channel, token)


def headers_of(response: Any) -> dict[str, str]:
    return {header.key: header.value for header in response.response_headers_to_add}


def codes_of(response: Any) -> Sequence[int]:
    return [status.code for status in response.statuses]


def code_of(response: Any) -> str:
    """Why a call is refused."""
    assert response.overall_code == OVER_LIMIT
    code: str = json.loads(response.raw_body)["error"]["code"]
    return code
