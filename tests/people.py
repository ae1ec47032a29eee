"""Agents of administrations, for tests."""

import itertools

from metering.catalog.tokens import issue_token
from metering.database import transaction
from metering.services import Services
from metering.tables import account, person

_numbers = itertools.count(1)


def add_agent(services: Services, tenant: str, role: str = "member", account_id: str | None = None) -> tuple[str, str]:
    """An account of an administration, with a name and address: its id, and a token for it."""
    chosen = account_id or f"u-{tenant}-{next(_numbers)}"
    with transaction(services.engine) as connection:
        connection.execute(account.insert().values(id=chosen, tenant=tenant, role=role))
        own = {"account": chosen, "tenant": tenant, "name": f"Agent {chosen}", "email": f"{chosen}@example.test"}
        connection.execute(person.insert().values(own))
        return chosen, issue_token(connection, f"{chosen}-token", "account", tenant=tenant, account=chosen)
