"""One application for many tests: building it takes longer than most of them."""

from inspect import ismethod

from litestar import Litestar

from metering.app import create_app
from metering.services import Services

_built: list[Litestar] = []


def application(services: Services) -> Litestar:
    """The application on these services; it leaves those of the test before, so only one test at a time may use it.

    What settings change while it is built (the size of bodies) stays as at first.
    """
    if not _built:
        _built.append(create_app(services))
    (app,) = _built
    for name in app.state:
        if (part := getattr(services, name, None)) is not None:
            app.state[name] = part() if ismethod(part) else part
    return app
