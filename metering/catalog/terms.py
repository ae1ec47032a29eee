"""Terms of use and data policy: what must be accepted, and who accepted it."""

from collections.abc import Sequence, Set
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.catalog import documents
from metering.catalog.snapshot import Snapshot
from metering.errors import Forbidden, NotFound, Unprocessable
from metering.identity import Principal
from metering.rules import access as rules
from metering.rules.access import Accepted, Demand
from metering.tables import acceptance, terms

TermsDocument = Literal["terms", "data_policy"]


_Known = tuple[Sequence[documents.Terms], datetime, datetime, tuple[Demand, ...]]
_FOR_EVER = datetime.max.replace(tzinfo=UTC)


class DemandsInForce:
    """What must be accepted, remembered until time or a publication changes it: the hot path asks at every request."""

    def __init__(self) -> None:
        self._known: _Known = ((), _FOR_EVER, _FOR_EVER, ())

    def at(self, versions: Sequence[documents.Terms], now: datetime) -> tuple[Demand, ...]:
        """Demands of the versions of a snapshot at an instant; the same object as long as they stay."""
        known, start, end, wanted = self._known
        if known is versions and start <= now < end:
            return wanted
        wanted = tuple(rules.demands(versions, now))
        self._known = versions, now, rules.demands_until(versions, now) or _FOR_EVER, wanted
        return wanted


def not_accepted(missing: Sequence[Accepted]) -> Forbidden:
    """The refusal that names the versions to accept."""
    return Forbidden(
        "terms_not_accepted", "The terms in force haven't been accepted.", field="terms",
        expected=", ".join(f"{document} {version}" for document, version in missing),
    )  # fmt: skip


def accept(
    connection: sa.Connection, catalog: Snapshot, caller: Principal, accepted: Accepted, now: datetime
) -> datetime:
    """Record that an account accepts a version, and return since when it does; again changes nothing.

    Raises: NotFound; Unprocessable for a version that another one has replaced.
    """
    known = acceptances(connection, caller)
    if accepted in known:
        return known[accepted]
    if accepted not in _names(catalog.terms):
        raise NotFound("unknown_terms", "There is no such version.", field="version")
    if accepted not in _names(rules.acceptable(catalog.terms, now)):
        raise Unprocessable(
            "terms_replaced", "Another version has replaced it.", field="version", expected="a later one"
        )
    document, version = accepted
    row = {"account": caller.account, "tenant": caller.tenant, "document": document, "version": version}
    connection.execute(insert(acceptance).values({**row, "accepted_at": now}).on_conflict_do_nothing())
    return acceptances(connection, caller)[accepted]


def _names(versions: Sequence[documents.Terms]) -> set[Accepted]:
    return {(one.document, one.version) for one in versions}


def acceptances(connection: sa.Connection, caller: Principal) -> dict[Accepted, datetime]:
    """What an account has accepted, and when."""
    columns = (acceptance.c.document, acceptance.c.version, acceptance.c.accepted_at)
    rows = connection.execute(sa.select(*columns).where(acceptance.c.account == caller.account))
    return {(row.document, row.version): row.accepted_at for row in rows}


def check_accepted(connection: sa.Connection, caller: Principal, now: datetime) -> None:
    """Raises: Forbidden, naming the versions, unless the caller has accepted what is enforced."""
    columns = (terms.c.document, terms.c.version, terms.c.effective_at, terms.c.enforced_at)
    wanted = rules.demands(connection.execute(sa.select(*columns)), now)
    accepted: Set[Accepted] = acceptances(connection, caller).keys()
    if missing := rules.unmet(wanted, accepted):
        raise not_accepted(missing)
