"""Who gets an account, which terms must be accepted, and when the end of a key is told."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol, TypeVar

Kind = Literal["individual", "partner"]
PhaseKind = Literal["restricted", "open", "closing"]
Overload = Literal["none", "batch", "free", "soft", "guaranteed"]
State = Literal["pending", "delayed", "approved", "refused"]
Reason = Literal["overload", "not_begun", "restricted", "closing", "over"]

CALM: frozenset[Overload] = frozenset({"none", "batch"})
"""Loads under which people are served as ever, so that new ones may come."""

STEPS_DAYS = (30, 7, 1)
"""How many days before its end a key's holder is told, longest first."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is decided on. mail_domain: of the address that the activation code will prove.

    siret_is_proven: the identity provider says it of who asks, and not only they themselves.
    """

    kind: Kind
    siret: str | None
    mail_domain: str
    siret_is_proven: bool = False


@dataclass(frozen=True, slots=True)
class House:
    """The platform's own administrations: their SIRET and mail domains, in lower case."""

    sirets: Set[str]
    domains: Set[str]

    def owns(self, request: Request) -> bool:
        """Whether somebody is of the house: by a proven SIRET, or the domain of an address that a mailed code proves.

        A SIRET is public, and one that is only stated proves nothing; stated and not the house's, it says that the
        access is for somebody else.
        """
        if request.siret_is_proven and request.siret in self.sirets:
            return True
        for_house = request.siret is None or not self.sirets or request.siret in self.sirets
        return for_house and any(_is_within(request.mail_domain, domain) for domain in self.domains)


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of an experiment, [starts_at, ends_at). lists_them: whether it names the asking administration."""

    kind: PhaseKind
    starts_at: datetime
    ends_at: datetime
    lists_them: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request; a reason where it waits for better days or is refused."""

    state: State
    reason: Reason | None = None


def judge(request: Request, house: House, overload: Overload, phases: Sequence[Phase] | None, now: datetime) -> Verdict:
    """What becomes of a request at its arrival, and again when an overload ends. Never depends on who has an account.

    phases: of the experiment that it is for, in order; None if it is for none.
    An experiment that takes nobody in refuses. Under overload an individual waits, the house's own too: it has the
    most agents. A partner doesn't: an operator decides in any case, and a convention pays for the capacity.
    """
    if phases is not None and (reason := _closed_door(phases, now)) is not None:
        return Verdict("refused", reason)
    if request.kind == "individual" and overload not in CALM:
        return Verdict("delayed", "overload")
    if request.kind == "individual" and house.owns(request):
        return Verdict("approved")
    return Verdict("pending")


def _closed_door(phases: Sequence[Phase], now: datetime) -> Reason | None:
    """Why an experiment takes an administration in no more, or not yet; None: it does."""
    current = next((phase for phase in phases if phase.starts_at <= now < phase.ends_at), None)
    if current is None:
        return "not_begun" if any(now < phase.starts_at for phase in phases) else "over"
    if current.kind == "closing":
        return "closing"
    return "restricted" if current.kind == "restricted" and not current.lists_them else None


def _is_within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")


class Version(Protocol):
    """A version of a document of the terms."""

    @property
    def document(self) -> str:
        """Which document."""

    @property
    def version(self) -> str:
        """Which version of it."""

    @property
    def effective_at(self) -> datetime:
        """From then on it is the one to accept."""

    @property
    def enforced_at(self) -> datetime:
        """From then on, no use without it."""


Accepted = tuple[str, str]
"""Document and version."""

AnyVersion = TypeVar("AnyVersion", bound=Version)


@dataclass(frozen=True, slots=True)
class Demand:
    """A document without which there is no use. met_by: the enforced version and those after; current: one of them."""

    current: Accepted
    met_by: frozenset[Accepted]


def acceptable(versions: Iterable[AnyVersion], now: datetime) -> list[AnyVersion]:
    """The current and the coming versions of every document, oldest first: what may be accepted now."""
    found = []
    for ordered in _by_document(versions):
        begun = [place for place, version in enumerate(ordered) if version.effective_at <= now]
        found += ordered[max(begun, default=0) :]
    return found


def demands(versions: Iterable[Version], now: datetime) -> list[Demand]:
    """What must be accepted at an instant: of each document the latest enforced version, or one after it."""
    found = []
    for ordered in _by_document(versions):
        enforced = [place for place, version in enumerate(ordered) if version.enforced_at <= now]
        if enforced:
            current = next(version for version in reversed(ordered) if version.effective_at <= now)
            names = [(version.document, version.version) for version in ordered[max(enforced) :]]
            found.append(Demand((current.document, current.version), frozenset(names)))
    return found


def demands_until(versions: Iterable[Version], now: datetime) -> datetime | None:
    """Until when `demands` stay as they are at an instant; None: for ever."""
    instants = [instant for version in versions for instant in (version.effective_at, version.enforced_at)]
    return min((instant for instant in instants if instant > now), default=None)


def unmet(wanted: Iterable[Demand], accepted: Set[Accepted]) -> list[Accepted]:
    """The current versions of what hasn't been accepted yet."""
    return [demand.current for demand in wanted if demand.met_by.isdisjoint(accepted)]


def expiry_step(expires_at: datetime, now: datetime) -> int | None:
    """Which of `STEPS_DAYS` a key has reached; None: none yet, or it is over."""
    left = expires_at - now
    reached = [days for days in STEPS_DAYS if timedelta(0) < left <= timedelta(days=days)]
    return min(reached, default=None)


def _by_document(versions: Iterable[AnyVersion]) -> list[list[AnyVersion]]:
    """Versions of each document, in the order in which they take effect."""
    documents: dict[str, list[AnyVersion]] = {}
    for version in sorted(versions, key=lambda version: (version.document, version.effective_at, version.version)):
        documents.setdefault(version.document, []).append(version)
    return list(documents.values())
