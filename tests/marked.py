"""An administration that has something of everything, all of it marked, to see whether others ever meet it."""

import json
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from metering.database import transaction
from metering.events.decoding import decode
from metering.rules.limits import Limit
from metering.rules.studies import study_of
from metering.services import Services
from metering.tables import (
    acceptance,
    access_request,
    account,
    api_key,
    billing_document,
    carbon_batch,
    carbon_entry,
    console_identity,
    console_session,
    convention,
    embed_ending,
    export_job,
    limit_override,
    metadata,
    month_closing,
    notice,
    outbox,
    person,
    project,
    quota_epoch,
    raise_request,
    tenant,
    terms,
    token,
    webhook,
)

MARK = "zzmark"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
RULE = {"scope": "tenant", "selector": "*", "meter": "requests", "window": "day", "value": 5, "mode": "hard"}

STUDY = msgspec.to_builtins(study_of(Limit(**RULE), [], [], today=NOW.date(), as_of=0))
EVENT = {
    "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": MARK, "time": "2026-10-05T08:00:02Z",
    "data": {
        "project": f"p-{MARK}", "user": f"u-{MARK}", "api_key": f"k-{MARK}", "operation": "chat", "status": "ok",
        "model_requested": "albert-large", "model_served": "albert-large", "started_at": "2026-10-05T08:00:00Z",
        "input_tokens": 100, "output_tokens": 20,
    },
}  # fmt: skip

EXPORT = {"kind": "usage", "format": "csv", "language": "en", "focus_version": "1.2", "amounts": False,
          "start": "2026-10-01", "end": "2026-11-01", "project": [f"p-{MARK}"]}  # fmt: skip

OWNED = sorted(name for name, table in metadata.tables.items() if "tenant" in table.c or name in {"tenant", "notice"})
"""Tables that hold rows of administrations."""


def mark_tenant(services: Services, tenant_id: str) -> None:
    """Give an administration a row in every table that holds rows of administrations."""
    own = {"tenant": tenant_id}
    rows: list[tuple[sa.Table, dict[str, Any]]] = [
        (project, own | {"id": f"p-{MARK}", "name": MARK}),
        (account, own | {"id": f"u-{MARK}", "role": "manager"}),
        (person, own | {"account": f"u-{MARK}", "name": MARK, "email": f"{MARK}@example.test"}),
        (api_key, own | {"id": f"k-{MARK}", "account": f"u-{MARK}", "project": f"p-{MARK}", "name": MARK,
                         "prefix": f"sk-{MARK}", "digest": b"1" * 32}),
        (token, own | {"name": f"t-{MARK}", "role": "account", "account": f"u-{MARK}", "digest": b"2" * 32}),
        (convention, own | {"id": f"c-{MARK}", "version": 1, "title": MARK, "funder": MARK,
                            "signed_on": date(2026, 1, 1), "effective_on": date(2026, 1, 1),
                            "starts_on": date(2026, 1, 1), "ends_on": date(2026, 12, 31), "settlement": "billed",
                            "overage": "bill", "tier": "soft", "outage": "open"}),
        (raise_request, own | {"id": f"r-{MARK}", "account": f"u-{MARK}", "rule": RULE, "motive": MARK,
                               "study": STUDY}),
        (limit_override, own | {"id": f"o-{MARK}", "rule": RULE, "starts_at": NOW, "motive": MARK, "approver": MARK}),
        (terms, {"document": "terms", "version": "1", "title_fr": "t", "title_en": "t", "text_fr": "t", "text_en": "t",
                 "effective_at": NOW, "enforced_at": NOW}),
        (acceptance, own | {"account": f"u-{MARK}", "document": "terms", "version": "1"}),
        (access_request, own | {"id": f"a-{MARK}", "kind": "invitation", "organisation": MARK, "name": MARK,
                                "email": f"{MARK}@example.test", "motive": MARK, "state": "approved"}),
        (webhook, own | {"id": f"w-{MARK}", "url": f"https://{MARK}.test/", "events": [], "salt": b"3" * 16}),
        (outbox, own | {"key": f"m-{MARK}", "channel": "mail", "recipient": f"account:u-{MARK}",
                        "subject": "account_deleted", "payload": {}}),
        (carbon_batch, {"seq": 1, "recorded_at": NOW, "hour": NOW, "method": "1", "ledger_seq": 1, "energy_seq": 0,
                        "factor_number": 0, "row_count": 1, "sums": [], "rows_digest": b"4" * 32, "hash": b"5" * 32}),
        (carbon_entry, own | {"batch_seq": 1, "hour": NOW, "part": "use", "user": f"u-{MARK}", "tier": "A",
                              "is_reversal": False, "factors": []}),
        (console_session, own | {"digest": b"6" * 32, "way": "token", "account": f"u-{MARK}", "name": MARK,
                                 "created_at": NOW, "seen_at": NOW}),
        (export_job, own | {"id": f"x-{MARK}", "account": f"u-{MARK}", "role": "manager", "name": MARK,
                            "author": f"manager:u-{MARK}", "asked": EXPORT, "as_of": 0, "state": "expired",
                            "due_at": NOW, "created_at": NOW}),
        (console_identity, own | {"digest": b"7" * 32, "account": f"u-{MARK}", "created_at": NOW}),
        (embed_ending, own | {"ended_at": NOW, "ended_by": f"manager:u-{MARK}"}),
        (quota_epoch, own | {"epoch": 1, "built_at": NOW}),
        (month_closing, {"month": "2026-09", "is_final": True, "ledger_batch": 0, "carbon_batch": 0,
                         "catalog_version": 1, "issued_on": NOW.date(), "author": "test", "review": {},
                         "started_at": NOW}),
        (billing_document, own | {"seq": 1, "number": f"F-{MARK}", "series": "F", "year": 2026, "serial": 1,
                                  "closing": 1, "place": 0, "kind": "invoice", "month": "2026-09",
                                  "settlement": "billed", "currency": "EUR", "issued_on": NOW.date(),
                                  "net_cents": 100, "vat_cents": 20, "gross_cents": 120, "document": MARK,
                                  "files": {}, "hash": b"6" * 32}),
        (notice, {"id": f"n-{MARK}", "kind": "information", "title_fr": MARK, "title_en": MARK, "text_fr": MARK,
                  "text_en": MARK, "starts_at": NOW, "tenants": [tenant_id]}),
    ]  # fmt: skip
    with transaction(services.engine) as connection:
        for table, row in rows:
            connection.execute(table.insert().values(row))
        connection.execute(tenant.update().where(tenant.c.id == tenant_id).values(name=f"Name {MARK}"))
    event = EVENT | {"data": EVENT["data"] | {"tenant": tenant_id}}
    answer = services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http")
    assert answer.is_whole


def rows_of(services: Services, tenant_id: str) -> dict[str, list[str]]:
    """Every row of an administration as text, by table, to compare before and after."""
    found = {}
    with transaction(services.engine) as connection:
        for name in OWNED:
            condition = {
                "tenant": "id = :tenant",
                "notice": ":tenant = ANY (tenants)",
                "ledger_entry": "tenant = (SELECT number FROM tenant WHERE id = :tenant)",
            }.get(name, "tenant = :tenant")
            query = sa.text(f"SELECT t::text FROM {name} t WHERE {condition} ORDER BY 1")
            found[name] = list(connection.scalars(query, {"tenant": tenant_id}))
    return found
