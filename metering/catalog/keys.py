"""May this key be used? The question of every request, answered from the process's snapshot alone."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from metering.catalog.snapshot import AccountEntry, KeyEntry, Snapshot, TenantEntry
from metering.catalog.terms import DemandsInForce, not_accepted
from metering.errors import Forbidden, Unauthorized
from metering.rules.access import Demand, unmet


class KeyHolder(NamedTuple):
    """A key that may be used, its administration, and its account; None: it is a program's."""

    key: KeyEntry
    tenant: TenantEntry
    account: AccountEntry | None


class _Managed:
    """Administrations with an active manager who has accepted what is demanded.

    Remembered as long as accounts and demands are the same objects: a snapshot shares what hasn't changed.
    """

    def __init__(self) -> None:
        self._known: tuple[Mapping[str, AccountEntry], tuple[Demand, ...], frozenset[str]] | None = None

    def tenants(self, accounts: Mapping[str, AccountEntry], wanted: tuple[Demand, ...]) -> frozenset[str]:
        known = self._known
        if known is not None and known[0] is accounts and known[1] is wanted:
            return known[2]
        managers = (one for one in accounts.values() if one.role == "manager" and one.status == "active")
        tenants = frozenset(one.tenant for one in managers if not unmet(wanted, one.accepted))
        self._known = accounts, wanted, tenants
        return tenants


_demands = DemandsInForce()
_managed = _Managed()


def check_key(catalog: Snapshot, digest: bytes, now: datetime) -> KeyHolder:
    """Who holds the key whose secret has this SHA-256.

    Raises: Unauthorized for a key that is unknown, revoked or expired, or whose holder is deleted; Forbidden where its
    administration or account is suspended, or the terms in force aren't accepted: by its account, or for a program's
    key by a manager of the administration.
    """
    key = catalog.keys.get(digest)
    if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise _invalid()
    tenant = catalog.tenants[key.tenant]
    if tenant.status != "active":
        raise _closed("tenant", tenant.status)
    account = None if key.account is None else catalog.accounts[key.account]
    if account is not None and account.status != "active":
        raise _closed("account", account.status)
    if wanted := _demands.at(catalog.terms, now):
        _check_terms(catalog, wanted, tenant, account)
    return KeyHolder(key, tenant, account)


def _check_terms(
    catalog: Snapshot, wanted: tuple[Demand, ...], tenant: TenantEntry, account: AccountEntry | None
) -> None:
    if account is None:
        if tenant.id not in _managed.tenants(catalog.accounts, wanted):
            raise not_accepted([demand.current for demand in wanted])
    else:
        for demand in wanted:
            if demand.met_by.isdisjoint(account.accepted):
                raise not_accepted(unmet(wanted, account.accepted))


def _invalid() -> Unauthorized:
    return Unauthorized("invalid_key", "The key is unknown, revoked or expired.", field="Authorization")


def _closed(what: str, status: str) -> Unauthorized | Forbidden:
    if status == "deleted":
        return _invalid()
    return Forbidden(f"{what}_suspended", f"The {'administration' if what == 'tenant' else what} is suspended.")
