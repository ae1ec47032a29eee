"""The HTTP application: routes, errors and health, put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import anyio
import litestar_offline_docs
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import ControllerRouterHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from metering.billing.closing_routes import closing_router
from metering.billing.routes import billing_router
from metering.carbon.routes import carbon_router
from metering.catalog.routes.access import access_router, activate_from
from metering.catalog.routes.admin import admin_router
from metering.catalog.routes.keys import keys_router
from metering.catalog.routes.limits import limits_router
from metering.catalog.routes.me import me_router
from metering.catalog.routes.models import models_router
from metering.catalog.routes.people import people_router
from metering.catalog.routes.service import service_router
from metering.catalog.routes.sessions import sessions_router
from metering.console.admin_routes import admin_pages
from metering.console.asking import asking_router
from metering.console.charts import chart_forms
from metering.console.demo_people import demo_router
from metering.console.documents import documents_router
from metering.console.guards import recognise, require_any_page
from metering.console.identified import identified_router
from metering.console.keys import key_forms
from metering.console.own_sessions import own_sessions_router
from metering.console.people import people_forms
from metering.console.raises import raise_forms
from metering.console.signing_in import signing_router, to_sign_in
from metering.console.terms import terms_forms
from metering.embeds import embeds_router, opened
from metering.errors import Forbidden, JaugeError, Unauthorized
from metering.events.routes import CHECKING_MAX, events_router
from metering.exporting.delivery_routes import deliveries_router
from metering.exporting.routes import exporting_router
from metering.health import check_stores
from metering.ledger.routes import ledger_router
from metering.metrics import WAITING
from metering.offering import LIMITS, standings_of
from metering.openapi import document_errors
from metering.overseeing import told
from metering.quotas.envelopes import envelopes_router
from metering.quotas.routes import quotas_router
from metering.reconciliation.routes import reconciliation_router
from metering.reporting import TRAIL, indicative_costs, indicative_sums
from metering.services import Services
from metering.settings import Settings
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
from reports.carbon_api import carbon_reports
from reports.drawing import Drawer
from reports.embed_pages import embed_pages
from reports.exports.api import exports_router
from reports.gateway_usage import gateway_usage_router
from reports.journal_api import journal_api
from reports.journal_pages import journal_pages
from reports.limits_pages import limits_pages
from reports.method_pages import method_pages
from reports.organization import organization_router
from reports.overview_pages import OverviewPages, OverviewSources
from reports.pages import pages_router
from reports.rendering import answer_error, answer_fault

Fault = TypeVar("Fault", bound=Exception)
Problem = Callable[[Request[Any, Any, Any], Fault], Response[dict[str, object]]]

API_PREFIX = "/v1/"
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
        activation_pages(activate_from),
    ],
    middleware=[knowing_changes],
)  # fmt: skip


def create_app(services: Services) -> Litestar:
    """The application on these services."""
    drawer = Drawer()
    overview = OverviewPages(drawer, OverviewSources(told, standings_of))

    @asynccontextmanager
    async def watching(app: Litestar) -> AsyncIterator[None]:
        with app.state.catalog.watching():
            yield
        await app.state.quotas.close()

    @asynccontextmanager
    async def answering_envoy(app: Litestar) -> AsyncIterator[None]:
        settings = app.state.settings
        if settings.envoy_address is None:
            yield
            return
        from metering.envoy.certificates import Certificates  # noqa: PLC0415 - gRPC, which few need
        from metering.envoy.service import RateLimits  # noqa: PLC0415
        from metering.envoy.serving import serving  # noqa: PLC0415

        certificates = None
        if settings.envoy_certificate is not None and settings.envoy_key is not None:
            certificates = Certificates(settings.envoy_certificate, settings.envoy_key, settings.envoy_client_ca)
        limits = RateLimits(app.state.quotas, app.state.catalog)
        async with serving(settings.envoy_address, limits, app.state.doorkeeper, certificates):
            yield

    app = Litestar(
        lifespan=[lambda _app: drawer.running(), overview.running, watching, answering_envoy],
        route_handlers=[*_routes(drawer, overview), *_design(services.settings)],
        state=_state(services),
        middleware=[request_log],
        exception_handlers={
            JaugeError: _page_or(problem_of_ours),
            HTTPException: _page_or(problem_of_litestar),
            Exception: _page_or(problem_of_fault),
        },
        logging_config=None,
        request_max_body_size=services.settings.intake_bytes_max,
        openapi_config=_openapi(),
    )
    document_errors(app.openapi_schema)
    return app


def _routes(drawer: Drawer, overview: OverviewPages) -> list[ControllerRouterHandler]:
    """The API, then the pages and what their forms do."""
    return [
        healthz,
        readyz,
        metrics,
        events_router,
        ledger_router,
        catalog_router,
        models_router,
        quotas_router,
        billing_router,
        reconciliation_router,
        envelopes_router,
        closing_router,
        carbon_router(guards=[require_reader], security=TOKEN_SECURITY),
        carbon_reports(guards=[require_reader], security=TOKEN_SECURITY),
        usage_router(guards=[require_reader], security=TOKEN_SECURITY),
        exporting_router,
        deliveries_router,
        exports_router(guards=[require_reader], security=TOKEN_SECURITY),
        journal_api(indicative_costs, TRAIL, guards=[require_reader], security=TOKEN_SECURITY),
        organization_router(indicative_sums, guards=[require_reader], security=TOKEN_SECURITY),
        gateway_usage_router(indicative_sums, guards=[require_reader], security=TOKEN_SECURITY),
        _pages(drawer, overview),
        embeds_router,
        embed_pages(drawer, opened),
        method_pages(guards=[recognise]),
        signing_router,
        identified_router,
        asking_router,
        demo_router,
        own_sessions_router,
        sessions_router,
        key_forms,
        raise_forms,
        chart_forms,
        people_forms,
        terms_forms,
        admin_pages,
        create_static_files_router("/docs/assets", [DOCS_ASSETS], include_in_schema=False),
    ]


def _page_or(problem: Problem[Fault]) -> Callable[[Request[Any, Any, Any], Fault], Response[Any]]:
    """The same problem, as a page where a browser asks for one; addresses of the API answer as they always do."""

    def answer(request: Request[Any, Any, Any], error: Fault) -> Response[Any]:
        found = problem(request, error)
        is_of_api = request.url.path.startswith(API_PREFIX)
        if is_of_api or "text/html" not in request.headers.get("accept", ""):
            return found
        status = found.status_code or HTTP_500_INTERNAL_SERVER_ERROR
        page = answer_error(request, error) if isinstance(error, JaugeError) else answer_fault(request, status)
        page.headers.update(found.headers)
        return page

    return answer


def _design(settings: Settings) -> list[ControllerRouterHandler]:
    """The files of the State's design system, where it is used."""
    if settings.state_design is None:
        return []
    return [create_static_files_router("/state", [settings.state_design.resolve()], include_in_schema=False)]


def _state(services: Services) -> State:
    """What handlers reach."""
    signing = services.signing()
    return State(
        {
            "settings": services.settings,
            "engine": services.engine,
            "committer": services.committer,
            "intake": services.intake,
            "corrections": services.corrections,
            "catalog": services.catalog,
            "doorkeeper": services.doorkeeper,
            "sessions": services.sessions,
            "signing": signing,
            "throttle": signing.throttle,
            "master_key": services.master_key,
            "quotas": services.quotas(),
            "closer": services.closer(),
            "redis": services.redis(),
            "export_sources": services.export_sources(),
            "checking": anyio.CapacityLimiter(CHECKING_MAX),
        }
    )


def _pages(drawer: Drawer, overview: OverviewPages) -> Router:
    """The pages of who has signed in; who hasn't is led to signing in."""
    return Router(
        "/",
        route_handlers=[
            overview.router(guards=[require_any_page]),
            pages_router(drawer, guards=[require_any_page]),
            journal_pages(indicative_costs, TRAIL, guards=[require_any_page]),
            limits_pages(LIMITS, guards=[require_any_page]),
            documents_router(),
        ],
        exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    )


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
