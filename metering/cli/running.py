"""Commands that start the service, and look after it."""

import threading
from dataclasses import replace
from pathlib import Path

import rich_click as click

from metering.cli.opening import services, stop_on_signals


@click.command()
@click.option("--host", help="Address to listen on (JAUGE_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (JAUGE_PORT); 0 takes a free one.")
@click.option("--envoy", "envoy_address", help="HOST:PORT at which Envoy is answered (JAUGE_ENVOY_ADDRESS).")
def serve(host: str | None, port: int | None, envoy_address: str | None) -> None:
    """Serve the API and the pages."""
    from metering.server import run_server

    with services() as opened:
        settings = opened.settings
        if envoy_address is not None:
            settings = settings.model_copy(update={"envoy_address": envoy_address})
        run_server(replace(opened, settings=settings), host or settings.host, settings.port if port is None else port)


@click.command()
def worker() -> None:
    """Consume the event stream, settle counters, send mails, make exports, and do what happens at set times."""
    from metering.events.stream import StreamConsumer
    from metering.outbox.delivery import Postman, couriers_for
    from metering.quotas.settling import Settler
    from metering.scheduler import start_scheduler
    from metering.services import keeping_of, lives_of

    stop = stop_on_signals()
    with services() as opened:
        settings = opened.settings
        scheduler = start_scheduler(
            opened.master_key,
            opened.counters(),
            opened.closer(),
            sessions=lives_of(settings),
            keeping=keeping_of(settings),
            verify_at_hour=settings.verify_at_hour,
            deliver=opened.deliverer().run if settings.deliveries is not None else None,
        )
        postman = Postman(opened.engine, couriers_for(settings, opened.master_key))
        posting = threading.Thread(target=postman.run, args=(stop,), name="postman")
        posting.start()
        exporting = threading.Thread(target=opened.exporter().run, args=(stop,), name="exporter")
        exporting.start()
        settling = threading.Thread(target=Settler(opened.counters()).run, args=(stop,), name="settler")
        settling.start()
        StreamConsumer(
            opened.redis(),
            opened.intake,
            stream=settings.stream_name,
            claim_ms=settings.stream_claim_ms,
            events_max=settings.intake_events_max,
        ).run(stop)
        scheduler.shutdown()
        posting.join()
        settling.join()
        exporting.join()


@click.command()
@click.option("--events", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Play this file.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
def demo(file: Path | None, port: int | None) -> None:
    """Start everything with a simulated gateway, until Ctrl-C."""
    from metering.demo import run_demo

    run_demo(file, port)


@click.command()
def migrate() -> None:
    """Bring the database to the current version."""
    from metering.services import migrate_database, open_stores
    from metering.settings import get_settings

    with open_stores(get_settings()) as stores:
        migrate_database(stores.database_url)
    click.echo("The database is current.")


@click.command()
def health() -> None:
    """Check that the stores answer, the tables are current and a worker consumes; exit with 75 if not."""
    from metering.health import check_stores, check_worker

    with services() as opened, opened.redis() as client:
        check_stores(opened.engine, client)
        check_worker(client, opened.settings.stream_name)
    click.echo("ok")
