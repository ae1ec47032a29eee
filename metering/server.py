"""The HTTP server."""

import gc

import uvicorn

from metering.app import create_app
from metering.console.demo_people import check_demo_host
from metering.quotas.door import with_door
from metering.services import Services

KEEP_ALIVE_S = 60
"""How long an idle connection stays open: twice as long as a gateway's client uses one, which then is never cut off."""

GARBAGE_MAX = 10_000
"""New objects before the youngest are looked through, instead of 700: a question makes about a hundred."""


def run_server(services: Services, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way are finished first.

    Raises: Unprocessable for a demo that others could reach.
    """
    check_demo_host(services.settings, host)
    application = with_door(create_app(services))
    # What is loaded stays: the collector neither walks it again and again, nor starts for a few questions' worth.
    gc.freeze()
    gc.set_threshold(GARBAGE_MAX)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=services.settings.trusted_proxies,
        timeout_graceful_shutdown=20,
        timeout_keep_alive=KEEP_ALIVE_S,
        lifespan="on",
    )
    uvicorn.Server(config).run()
