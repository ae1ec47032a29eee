"""The database itself keeps administrations apart: raw SQL under the role that acts for one of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from metering import embedded
from metering.catalog.tenants import add_tenant
from metering.database import Actor, transaction
from metering.errors import JaugeError
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import metadata
from tests.conftest import TENANTS, copied_database
from tests.marked import MARK, OWNED, mark_tenant, rows_of

TABLES = sorted(metadata.tables)
DINUM = Actor("a manager of dinum", "dinum")


@pytest.fixture(scope="module")
def marked(servers: embedded.Servers, template: str) -> Iterator[Services]:
    """Services on a database where another administration has something of everything; nothing of it ever changes."""
    with copied_database(servers, template, "row_security") as url:
        with open_services(Settings(database_url=url, redis_url=servers.redis_url, data=Path("unused"))) as services:
            for tenant_id in TENANTS:
                add_tenant(services.engine, tenant_id)
            mark_tenant(services, "sante")
            assert all(rows_of(services, "sante").values())
            with transaction(services.engine) as connection:
                connection.execute(sa.text("INSERT INTO account (tenant, id) VALUES ('dinum', 'u-own')"))
                connection.execute(sa.text("INSERT INTO raise_request (id, tenant, account, rule, motive, study) "
                                           "VALUES ('own', 'dinum', 'u-own', '{}', 'm', '{}')"))  # fmt: skip
            yield services


def attempt(services: Services, statement: str) -> sa.CursorResult | None:
    """Result of a statement for an agent of dinum; None where the database refuses it."""
    try:
        with transaction(services.engine, actor=DINUM) as connection:
            result = connection.execute(sa.text(statement))
            return result.freeze()() if result.returns_rows else result
    except sa.exc.DBAPIError as error:
        if error.orig.sqlstate in {"42501", "23001"}:  # no privilege, or append-only
            return None
        raise


@pytest.mark.parametrize("table", TABLES)
def test_nothing_of_another_administration_is_read(marked: Services, table: str) -> None:
    rows = attempt(marked, f"SELECT t::text FROM {table} t")
    assert rows is None or not [row for (row,) in rows if MARK in row or "sante" in row]


def test_no_row_of_another_administration_is_changed_or_taken_away(marked: Services) -> None:
    before = rows_of(marked, "sante")
    for name in TABLES:
        column = next(one.name for one in metadata.tables[name].c if one.identity is None)
        for statement in (f'UPDATE {name} SET "{column}" = "{column}"', f"DELETE FROM {name}", f"TRUNCATE {name}"):
            result = attempt(marked, statement)
            assert result is None or name in OWNED, statement
    assert rows_of(marked, "sante") == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO project (tenant, id, name) VALUES ('sante', 'p', 'p')",
        "INSERT INTO account (tenant, id) VALUES ('sante', 'u')",
        "INSERT INTO person (tenant, account, name, email) VALUES ('sante', 'u-zzmark', 'x', 'x')",
        "INSERT INTO api_key (tenant, id, name, prefix, digest) VALUES ('sante', 'k', 'k', 'k', 'k')",
        "INSERT INTO token (tenant, account, name, role, digest) VALUES ('sante', 'u-zzmark', 't', 'account', 't')",
        "INSERT INTO token (name, role, digest) VALUES ('t', 'operator', 't')",
        (
            "INSERT INTO outbox (key, channel, tenant, recipient, subject, payload) "
            "VALUES ('k', 'mail', 'sante', 'account:u-zzmark', 'x', '{}')"
        ),
        "INSERT INTO webhook (tenant, id, url, events, salt) VALUES (NULL, 'w', 'https://x', '{}', 's')",
        (
            "INSERT INTO access_request (id, kind, organisation, name, email, motive, state, tenant) "
            "VALUES ('a', 'invitation', 'o', 'n', 'e', 'm', 'approved', 'sante')"
        ),
        (
            "INSERT INTO limit_override (id, tenant, rule, starts_at, motive, approver) "
            "VALUES ('o', 'dinum', '{}', now(), 'm', 'a')"
        ),
        (
            "INSERT INTO raise_request (id, tenant, account, rule, motive, study, state) "
            "VALUES ('r', 'dinum', 'u-own', '{}', 'm', '{}', 'approved')"
        ),
        "UPDATE raise_request SET state = 'approved'",
        "UPDATE tenant SET status = 'active'",
        "INSERT INTO catalog_change (author, entity, key, action) VALUES ('a', 'e', 'k', 'insert')",
        "INSERT INTO plan (id, name, tier, outage) VALUES ('p', 'p', 'free', 'local')",
        "SELECT sums FROM ledger_batch",
        "SELECT house_domains FROM platform",
        "SELECT * FROM ledger_entry_2026_10",
    ],
)
def test_what_is_not_an_administrations_own_is_refused(marked: Services, statement: str) -> None:
    assert attempt(marked, statement) is None


def test_an_administration_reads_and_writes_its_own(marked: Services) -> None:
    assert attempt(marked, "INSERT INTO project (tenant, id, name) VALUES ('dinum', 'p', 'p')") is not None
    assert [row[0] for row in attempt(marked, "SELECT id FROM tenant") or ()] == ["dinum"]
    assert [row[0] for row in attempt(marked, "SELECT author FROM catalog_change WHERE entity = 'project'") or ()] == [
        "a manager of dinum"
    ]


def test_no_administration_is_none(marked: Services) -> None:
    with transaction(marked.engine, actor=Actor("nobody", "")) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM usage_daily")) == 0
        assert connection.scalar(sa.text("SELECT count(*) FROM account")) == 0


def test_a_transaction_for_one_leaves_nothing_behind_in_its_connection(marked: Services) -> None:
    for _ in range(12):
        with transaction(marked.engine, actor=DINUM) as connection:
            connection.execute(sa.text("SELECT 1"))
        with transaction(marked.engine) as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM tenant")) == 5
            assert not connection.scalar(sa.text("SELECT current_setting('jauge.tenant', true)"))


def test_every_table_of_administrations_is_separated(services: Services) -> None:
    with services.engine.connect() as connection:
        readable = set(
            connection.scalars(
                sa.text(
                    "SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p') "
                    "AND c.relnamespace = 'public'::regnamespace AND NOT c.relrowsecurity "
                    "AND has_any_column_privilege('jauge_tenant', c.oid, 'SELECT, INSERT, UPDATE')"
                )
            )
        )
    assert not readable & set(OWNED)
    assert readable == {
        "carbon_batch", "carbon_hour", "deployment", "emission_factor", "ledger_batch", "model", "model_alias",
        "model_category", "plan", "platform", "retirement", "site", "terms",
    }  # fmt: skip


def test_the_record_of_changes_is_never_changed_and_holds_no_person_and_no_hash(marked: Services) -> None:
    with transaction(marked.engine) as connection:
        record = connection.scalar(sa.text("SELECT string_agg(t::text, ' ') FROM catalog_change t"))
    assert "example.test" not in record
    assert "\\x3131" not in record
    for statement in (
        "UPDATE catalog_change SET author = 'x'",
        "DELETE FROM catalog_change",
        "TRUNCATE catalog_change",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="only grows"), transaction(marked.engine) as connection:
            connection.execute(sa.text(statement))


@pytest.mark.parametrize("table", ["acceptance", "convention", "terms"])
def test_what_was_signed_or_accepted_is_never_changed(marked: Services, table: str) -> None:
    for statement in (f"UPDATE {table} SET version = version", f"DELETE FROM {table}"):
        with pytest.raises(sa.exc.DBAPIError, match="only grows"), transaction(marked.engine) as connection:
            connection.execute(sa.text(statement))


def test_a_text_that_cannot_be_stored_is_an_error_of_the_caller(services: Services) -> None:
    with pytest.raises(JaugeError, match="can't be stored"), transaction(services.engine) as connection:
        connection.execute(sa.text("SELECT CAST(:text AS text)"), {"text": "\0"})
