"""What every command begins and ends with: the services it opens, the signals that stop it, its exit codes.

Exit codes: 0 done; 1 something was refused or differs; 2 a wrong call; 75 a store is away: try again.
"""

import getpass
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from metering.errors import Unavailable

if TYPE_CHECKING:
    from metering.database import Actor
    from metering.identity import Principal
    from metering.services import Services

EXIT_DIFFERS = 1
EXIT_UNAVAILABLE = 75


@contextmanager
def services() -> Iterator["Services"]:
    """The services that the settings name."""
    from metering.embedded import EmbeddedError
    from metering.logs import configure_logs
    from metering.services import open_services
    from metering.settings import get_settings

    settings = get_settings()
    configure_logs(settings.log_format, settings.log_level)
    try:
        with open_services(settings) as opened:
            yield opened
    except EmbeddedError as error:
        raise Unavailable("embedded_failed", str(error)) from error


def stop_on_signals() -> threading.Event:
    """An event that is set by Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def me() -> "Actor":
    """Who the record of changes names for a command: the account of the machine."""
    from metering.database import Actor

    return Actor(f"command:{getpass.getuser()}")


def operator() -> "Principal":
    """Who a command is where a service asks who calls: an operator, named by the account of the machine."""
    from metering.identity import Principal

    return Principal(getpass.getuser(), "operator")
