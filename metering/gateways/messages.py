"""What an answer of Anthropic's Messages API used, read as it passes.

A stream tells its input first (`message_start`) and its output at its end (`message_delta`), each count in full so far.
In between, and in what breaks off there, output is what was streamed. Sources: platform.claude.com/docs, "Streaming
messages"; anthropics/anthropic-sdk-python `types/raw_message_stream_event.py`, `message_delta_usage.py`.
"""

from collections.abc import Mapping
from typing import Any

from metering.events.providers import Provider
from metering.gateways.answers import BodyReader, Quantities, StreamReader, chunk_tokens, normalised, whole_tokens


class MessageReader(BodyReader):
    """Reads an answer in one JSON object, as `BodyReader` does."""

    def _read(self, answer: Mapping[str, Any]) -> None:
        self.usage = _quantities(answer.get("usage"))
        self.finish_reason = _name(answer.get("stop_reason"))
        self.counted = whole_tokens(answer["content"]) if isinstance(answer.get("content"), list) else None


class MessageStreamReader(StreamReader):
    """Reads server-sent events as they pass. Their usage needs no asking for, and is its client's."""

    def __init__(self) -> None:
        super().__init__(hides_usage=False)
        self._told: dict[str, Any] = {}

    def _take(self, chunk: Mapping[str, Any]) -> bool:
        kind = chunk.get("type")
        if kind == "message_start" and isinstance(message := chunk.get("message"), Mapping):
            self._learn(message.get("usage"))
        elif kind == "content_block_delta":
            self.counted += chunk_tokens(chunk.get("delta"))
            if self.usage is not None:
                self.usage["output_tokens"] = max(self.usage.get("output_tokens") or 0, self.counted)
        elif kind == "message_delta" and isinstance(delta := chunk.get("delta"), Mapping):
            self._learn(chunk.get("usage"))
            self.finish_reason = _name(delta.get("stop_reason")) or self.finish_reason
        self.is_complete |= kind == "message_stop" or self.finish_reason is not None
        self.is_failed |= kind == "error"
        return False

    def _learn(self, usage: object) -> None:
        """Counts only grow: a later 0 is of a server that doesn't repeat them."""
        if isinstance(usage, Mapping):
            self._told |= {name: count for name, count in usage.items() if count or name not in self._told}
            self.usage = _quantities(self._told) or self.usage


def _quantities(usage: object) -> Quantities | None:
    """What a usage object tells. A prompt has a token at least: 0 is of a server that doesn't know yet."""
    found = normalised(usage, Provider.ANTHROPIC) if isinstance(usage, Mapping) else None
    if found is not None and not found.get("input_tokens"):
        found = {name: count for name, count in found.items() if name not in {"input_tokens", "cached_input_tokens"}}
    return found or None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None
