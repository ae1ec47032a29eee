"""The HTTP server."""

import uvicorn

from metering.app import create_app
from metering.quotas.door import with_door
from metering.services import Services


def run_server(services: Services, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way are finished first."""
    config = uvicorn.Config(
        with_door(create_app(services)),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=20,
        lifespan="on",
    )
    uvicorn.Server(config).run()
