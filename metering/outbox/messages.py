"""What is sent, what came of it, and who carries it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa

Channel = Literal["mail", "webhook"]
State = Literal["waiting", "sending", "sent", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the outbox. attempts: including the one under way. last_error: a code."""

    number: int
    key: str
    channel: Channel
    tenant: str | None
    recipient: str
    subject: str
    payload: Mapping[str, Any]
    state: State
    attempts: int
    due_at: datetime
    last_error: str | None
    created_at: datetime
    done_at: datetime | None

    @classmethod
    def of(cls, row: sa.Row[Any]) -> "Message":
        """From a row of all columns."""
        return cls(**row._mapping)

    @property
    def stable_id(self) -> str:
        """The same at every attempt, so that a receiver recognises a repeat; tells nothing of how many there are."""
        return hashlib.sha256(f"{self.number}/{self.key}".encode()).hexdigest()[:32]

    @property
    def recipient_id(self) -> str:
        """Id of the recipient, without its kind."""
        return self.recipient.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt.

    sent: handed over. dropped: nobody to tell any more. failed: refused for good. waiting: to be tried again.
    code: why, where it wasn't sent; never text of the other side.
    """

    state: Literal["sent", "dropped", "failed", "waiting"]
    code: str | None = None

    @property
    def final(self) -> bool:
        """Whether nothing more is tried."""
        return self.state != "waiting"


SENT = Outcome("sent")
Sending = Callable[[], Outcome]


class Courier(Protocol):
    """Carries the messages of one channel."""

    def prepare(self, connection: sa.Connection, message: Message, now: datetime) -> Sending | Outcome:
        """Read what is needed and return what sends it, to be called outside any transaction; or why not to."""

    def conclude(self, connection: sa.Connection, message: Message, outcome: Outcome, now: datetime) -> None:
        """Do what follows from a final outcome, in the transaction that notes it."""
