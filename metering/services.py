"""What every command and the server share: the stores and the services on them, put together in one place."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from metering import embedded, migrate
from metering.catalog.sessions import Lives, Sessions
from metering.catalog.snapshot import CatalogReader
from metering.catalog.tokens import Doorkeeper
from metering.database import engine_for
from metering.events.intake import Intake
from metering.ledger.append import Ledger
from metering.ledger.committer import GroupCommitter
from metering.ledger.corrections import Corrections
from metering.ledger.series import SeriesRegistry
from metering.outbox.secrets import MasterKey, load_master_key
from metering.quotas.building import CounterBuilder
from metering.quotas.store import CounterStore
from metering.retention import Keeping
from metering.settings import Settings
from metering.valkey import connect

if TYPE_CHECKING:
    import redis

    from metering.billing.closing import Closer
    from metering.console.sign_in import SignIn
    from metering.exporting.delivering import Deliverer
    from metering.exporting.working import Exporter
    from metering.quotas.service import QuotaService
    from reports.exports.making import Sources


@dataclass(frozen=True, slots=True)
class Stores:
    """Addresses of the database and of the stream's server."""

    database_url: str
    redis_url: str


@dataclass(frozen=True, slots=True)
class Services:
    """The services on one pair of stores."""

    settings: Settings
    stores: Stores
    engine: sa.Engine
    committer: GroupCommitter
    intake: Intake
    corrections: Corrections
    catalog: CatalogReader
    doorkeeper: Doorkeeper
    sessions: Sessions
    master_key: MasterKey

    def counters(self) -> CounterBuilder:
        """What builds and settles the counters of quotas."""
        return CounterBuilder(self.engine, self.catalog, CounterStore(self.redis()))

    def quotas(self) -> "QuotaService":
        """What answers the gateway's question; for one event loop."""
        from metering.quotas.service import QuotaService  # noqa: PLC0415
        from metering.quotas.store import AsyncCounterStore  # noqa: PLC0415

        return QuotaService(self.catalog, AsyncCounterStore(self.stores.redis_url), self.counters())

    def export_sources(self) -> "Sources":
        """What exports are made from; accounts of the seller's books are those that settings name."""
        from metering.billing.amounts import amounts_by  # noqa: PLC0415 - what few commands need
        from reports.exports.accounting import Accounts  # noqa: PLC0415
        from reports.exports.making import Sources  # noqa: PLC0415

        named = self.settings
        accounts = Accounts(named.account_journal, named.account_customer, named.account_revenue, named.account_vat)
        return Sources(self.engine, amounts_by(self.catalog), accounts)

    def exporter(self) -> "Exporter":
        """What makes the exports that were asked for."""
        from metering.exporting.working import Exporter  # noqa: PLC0415 - what few commands need

        return Exporter(self.export_sources(), self.settings.data, timedelta(hours=self.settings.exports_keep_h))

    def deliverer(self) -> "Deliverer":
        """What delivers exports. Raises: Unprocessable where settings name no file of deliveries."""
        from metering.exporting.delivering import deliverer_of  # noqa: PLC0415 - what few commands need

        return deliverer_of(self.export_sources(), self.settings.data, self.settings.deliveries)

    def closer(self) -> "Closer":
        """What closes months, with documents as files."""
        from metering.billing.closing import Closer  # noqa: PLC0415 - typesetting and XML, which few commands need
        from reports.documents import files_of  # noqa: PLC0415

        return Closer(self.engine, self.settings.data, files_of, self.settings.close_grace_days)

    def signing(self) -> "SignIn":
        """What signing in on the pages needs."""
        from metering.console.sign_in import sign_in_of  # noqa: PLC0415 - of the server alone

        return sign_in_of(self.settings, self.redis())

    def redis(self) -> "redis.Redis":
        """A client of the stream's server."""
        return connect(self.stores.redis_url, socket_connect_timeout=5, health_check_interval=30)


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """The stores that settings name; the embedded servers for those they don't, brought to the current version."""
    with ExitStack() as stack:
        database_url = settings.database_url and settings.database_url.get_secret_value()
        redis_url = settings.redis_url and settings.redis_url.get_secret_value()
        if not (database_url and redis_url):
            servers = stack.enter_context(embedded.running(settings.data))
            if not database_url:
                migrate_database(servers.database_url)
            database_url, redis_url = database_url or servers.database_url, redis_url or servers.redis_url
        yield Stores(database_url, redis_url)


def lives_of(settings: Settings) -> Lives:
    """How long sessions last."""
    return Lives(timedelta(minutes=settings.session_idle_min), timedelta(hours=settings.session_most_h))


def keeping_of(settings: Settings) -> Keeping:
    """How long kinds of data are kept."""
    quarantine, messages = (
        None if days is None else timedelta(days=days)
        for days in (settings.quarantine_keep_days, settings.messages_keep_days)
    )
    return Keeping(quarantine, messages)


def migrate_database(database_url: str) -> None:
    """Bring a database to the current version."""
    engine = engine_for(database_url)
    try:
        migrate.upgrade(engine)
    finally:
        engine.dispose()


@contextmanager
def open_services(settings: Settings) -> Iterator[Services]:
    """The services; when the block ends, what waits for the ledger is written first."""
    with open_stores(settings) as stores:
        engine = engine_for(stores.database_url)
        series = SeriesRegistry(engine)
        ledger = Ledger(engine, series)
        catalog = CatalogReader(engine)
        committer = GroupCommitter(
            ledger, queue_events_max=settings.queue_events_max, group_events_max=settings.group_events_max
        )
        try:
            yield Services(
                settings=settings,
                stores=stores,
                engine=engine,
                committer=committer,
                intake=Intake(engine, series, committer),
                corrections=Corrections(engine, ledger),
                catalog=catalog,
                doorkeeper=Doorkeeper(catalog),
                sessions=Sessions(engine, catalog, lives_of(settings), frozenset(settings.oidc_operators)),
                master_key=load_master_key(settings),
            )
        finally:
            committer.close()
            engine.dispose()
