"""The HTTP application: routes, errors and health, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import litestar_offline_docs
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from metering.catalog.activation import activate
from metering.catalog.routes.access import access_router
from metering.catalog.routes.acting import clock
from metering.catalog.routes.admin import admin_router
from metering.catalog.routes.keys import keys_router
from metering.catalog.routes.limits import limits_router
from metering.catalog.routes.me import me_router
from metering.catalog.routes.models import models_router
from metering.catalog.routes.people import people_router
from metering.catalog.routes.service import service_router
from metering.errors import JaugeError
from metering.events.routes import CHECKING_MAX, events_router
from metering.health import check_stores
from metering.ledger.routes import ledger_router
from metering.metrics import WAITING
from metering.openapi import document_errors
from metering.quotas.routes import quotas_router
from metering.services import Services
from metering.web import (
    TOKEN_SECURITY,
    knowing_changes,
    problem_of_fault,
    problem_of_litestar,
    problem_of_ours,
    request_log,
    require_reader,
)
from reports.activation import activation_pages
from reports.api import usage_router
from reports.drawing import Drawer
from reports.pages import pages_router

DOCS_ASSETS = Path(litestar_offline_docs.__file__).parent / "static"


@get("/healthz", summary="Whether the process lives", tags=["service"], sync_to_thread=False)
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@get("/readyz", summary="Whether the stores answer and are current", tags=["service"], sync_to_thread=True)
def readyz(request: Request[Any, Any, Any]) -> dict[str, str]:
    check_stores(request.app.state.engine, request.app.state.redis)
    return {"status": "ready"}


@get("/metrics", summary="Figures for Prometheus", tags=["service"], media_type=MediaType.TEXT, sync_to_thread=False)
def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    WAITING.set(request.app.state.committer.waiting_events)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


catalog_router = Router(
    "/",
    route_handlers=[
        admin_router, limits_router, service_router, access_router, me_router, people_router, keys_router,
        activation_pages(lambda state, code: activate(state.engine, code, clock())),
    ],
    middleware=[knowing_changes],
)  # fmt: skip


def create_app(services: Services) -> Litestar:
    """The application on these services."""
    drawer = Drawer()

    @asynccontextmanager
    async def watching(app: Litestar) -> AsyncIterator[None]:
        with app.state.catalog.watching():
            yield
        await app.state.quotas.close()

    app = Litestar(
        lifespan=[lambda _app: drawer.running(), watching],
        route_handlers=[
            healthz,
            readyz,
            metrics,
            events_router,
            ledger_router,
            catalog_router,
            models_router,
            quotas_router,
            usage_router(guards=[require_reader], security=TOKEN_SECURITY),
            pages_router(drawer, guards=[require_reader]),
            create_static_files_router("/docs/assets", [DOCS_ASSETS], include_in_schema=False),
        ],
        state=State(
            {
                "settings": services.settings,
                "engine": services.engine,
                "committer": services.committer,
                "intake": services.intake,
                "corrections": services.corrections,
                "catalog": services.catalog,
                "doorkeeper": services.doorkeeper,
                "master_key": services.master_key,
                "quotas": services.quotas(),
                "redis": services.redis(),
                "checking": anyio.CapacityLimiter(CHECKING_MAX),
            }
        ),
        middleware=[request_log],
        exception_handlers={
            JaugeError: problem_of_ours,
            HTTPException: problem_of_litestar,
            Exception: problem_of_fault,
        },
        logging_config=None,
        request_max_body_size=services.settings.intake_bytes_max,
        openapi_config=_openapi(),
    )
    document_errors(app.openapi_schema)
    return app


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Jauge",
        version=version("jauge"),
        description="Usage ledger: what was used, exactly, by whom.",
        path="/docs",
        components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url="/docs/assets/swagger-ui-bundle.js",
                css_url="/docs/assets/swagger-ui.css",
                standalone_preset_js_url="/docs/assets/swagger-ui-standalone-preset.js",
                favicon="",  # the default one comes from a content delivery network
            )
        ],
    )
