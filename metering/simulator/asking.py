"""The simulated gateway asks before it runs a request, and tells what was used after."""

from collections import OrderedDict
from typing import Any

import httpx
import msgspec

REMEMBERED_MAX = 10_000
"""Requests whose answer is remembered: an event that is sent again must be the same."""

ESTIMATED = {"prompt_tokens": "input_tokens", "audio_ms": "audio_ms", "inputs": "embedding_inputs", "pages": "pages"}
"""What is expected of a request, by the quantity that it turns out to use."""
COMMITTED = ("input_tokens", "output_tokens", "audio_ms", "embedding_inputs", "pages", "searches")
OUTCOME = ("first_token_at", "finish_reason", "count_source", "queue_ms")
REFUSED = frozenset({403, 429, 503})

Data = dict[str, Any]


class QuotaDesk:
    """Holds before and commits after each event of live traffic, as a gateway does around its request."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=5)
        self._decided: OrderedDict[str, bytes] = OrderedDict()
        self.refused = 0

    def admit(self, event: bytes) -> bytes:
        """The event as it is sent once the ledger was asked: with its reservation, or as a refused request.

        What the catalogue doesn't know, and what isn't asked for (hosting), is sent as it is; so is everything while
        nobody answers.
        """
        made = msgspec.json.decode(event)
        known = self._decided.get(made["id"])
        if known is not None:
            return known
        decided = self._ask(made) if made["data"]["operation"] != "storage" else event
        self._decided[made["id"]] = decided
        if len(self._decided) > REMEMBERED_MAX:
            self._decided.popitem(last=False)
        return decided

    def close(self) -> None:
        """Leave no connection open."""
        self._client.close()

    def _ask(self, made: Data) -> bytes:
        data: Data = made["data"]
        who = _who(data)
        asked = who | {"reservation": made["id"], "estimates": _estimates(data)}
        try:
            answer = self._client.post("/v1/quota/reserve", json=asked)
            if answer.status_code == httpx.codes.OK:
                data["reservation"] = made["id"]
                used = {name: data.get(name) for name in COMMITTED}
                commit = who | {"reservation": made["id"], "quantities": used}
                self._client.post("/v1/quota/commit", json=commit)
            elif answer.status_code in REFUSED:
                self.refused += 1
                _refuse(made, answer.status_code, answer.json()["code"])
        except httpx.HTTPError:
            pass  # the event settles what nobody could be asked about
        return msgspec.json.encode(made)


def _who(data: Data) -> Data:
    names = {"tenant": "tenant", "project": "project", "user": "user", "api_key": "api_key"}
    who = {name: data[field] for name, field in names.items() if data.get(field) is not None}
    return who | {"model": data["model_requested"], "operation": data["operation"]}


def _estimates(data: Data) -> Data:
    expected = {name: data[field] for name, field in ESTIMATED.items() if data.get(field) is not None}
    return expected | {"max_output_tokens": data.get("output_tokens") or 0}


def _refuse(made: Data, status: int, code: str) -> None:
    """Turn an event into that of a request which never ran."""
    data = made["data"]
    for name in (*COMMITTED, *OUTCOME, "cached_input_tokens", "reasoning_tokens", "images", "documents", "bytes_out"):
        data.pop(name, None)
    data |= {"status": "refused", "http_status": status, "error_code": code}
    made["time"] = data.get("started_at", made["time"])
