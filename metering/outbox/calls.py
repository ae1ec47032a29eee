"""Calls of webhooks, as Standard Webhooks asks (https://www.standardwebhooks.com)."""

import asyncio
import json
import socket
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

import httpx
import sqlalchemy as sa
from standardwebhooks import Webhook as Signer

from metering.errors import Unprocessable
from metering.outbox.addresses import is_public, parse_url, port_of
from metering.outbox.messages import SENT, Message, Outcome, Sending
from metering.outbox.secrets import MasterKey
from metering.tables import webhook

CALL_S_MAX = 10
"""For all of a call: a receiver that answers byte by byte holds nobody up."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be made; the same event is always under the same id."""

    id: str
    url: str
    body: str
    secrets: tuple[str, ...] = field(repr=False)

    def headers(self, now: datetime) -> dict[str, str]:
        """Headers with one signature for each secret."""
        signatures = [Signer(secret).sign(self.id, now, self.body) for secret in self.secrets]
        return {
            "content-type": "application/json",
            "user-agent": "Jauge",
            "webhook-id": self.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


class WebhookCourier:
    """Calls webhooks. private_allowed: also addresses of the inside and plain http, for development."""

    def __init__(self, keys: MasterKey, *, private_allowed: bool) -> None:
        self._keys = keys
        self._private_allowed = private_allowed
        self._tls = ssl.create_default_context()

    def prepare(self, connection: sa.Connection, message: Message, now: datetime) -> Sending | Outcome:
        """Read where it leads, and sign. Raises: Unavailable without a master key."""
        row = connection.execute(sa.select(webhook).where(webhook.c.id == message.recipient_id)).first()
        if row is None or row.disabled_at is not None:
            return Outcome("dropped", "webhook_disabled")
        salts = [row.salt]
        if row.old_salt is not None and now < row.old_salt_until:
            salts.append(row.old_salt)
        secrets = tuple(self._keys.webhook_secret(row.id, bytes(salt)) for salt in salts)
        call = Call(f"msg_{message.stable_id}", row.url, body_of(message), secrets)
        return partial(self._send, call, now)

    def conclude(self, connection: sa.Connection, message: Message, outcome: Outcome, now: datetime) -> None:
        """An address that is gone is called no more."""
        if outcome.code == "address_gone":
            connection.execute(webhook.update().where(webhook.c.id == message.recipient_id).values(disabled_at=now))

    def _send(self, call: Call, now: datetime) -> Outcome:
        try:
            status = asyncio.run(self._post(call, now))
        except Unprocessable:
            return Outcome("waiting", "address_refused")
        except TimeoutError:
            return Outcome("waiting", "timeout")
        except socket.gaierror:
            return Outcome("waiting", "unknown_host")
        except (httpx.HTTPError, OSError) as error:
            return Outcome("waiting", "tls_failed" if _is_of_tls(error) else "connect_failed")
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return SENT
        return Outcome("dropped", "address_gone") if status == HTTPStatus.GONE else Outcome("waiting", f"http_{status}")

    async def _post(self, call: Call, now: datetime) -> int:
        """Status of the answer; its body is never read. Raises what the network raises; Unprocessable, see `_send`."""
        url = parse_url(call.url, private_allowed=self._private_allowed)
        async with asyncio.timeout(CALL_S_MAX):
            addresses = await self._addresses(url)
            # No proxy of the environment: it would resolve the name again.
            async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client:  # noqa: S113 - above
                for address in addresses[:-1]:
                    try:
                        return await _post_to(client, url, address, call, now)
                    except httpx.ConnectError:
                        continue
                return await _post_to(client, url, addresses[-1], call, now)

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """Addresses of a host, each of them checked. Raises: Unprocessable if one isn't public; gaierror."""
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port_of(url), type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._private_allowed and not all(map(is_public, addresses)):
            raise Unprocessable("private_address", "The address isn't public.")
        return addresses


async def _post_to(client: httpx.AsyncClient, url: httpx.URL, address: str, call: Call, now: datetime) -> int:
    """Call one checked address; the certificate must still be the name's."""
    request = client.build_request(
        "POST",
        url.copy_with(host=address),
        content=call.body.encode(),
        headers=call.headers(now) | {"host": url.netloc.decode("ascii")},
        extensions={"sni_hostname": url.raw_host.decode("ascii").strip("[]")},
    )
    response = await client.send(request, stream=True)
    await response.aclose()
    return response.status_code


def body_of(message: Message) -> str:
    """Body of a call: the same at every attempt. `timestamp` is when it happened."""
    data = dict(message.payload)
    if message.tenant is not None:
        data["tenant"] = message.tenant
    happened_at = message.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": message.subject, "timestamp": happened_at, "data": data}, ensure_ascii=False)


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None
