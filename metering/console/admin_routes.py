"""The routes of the pages of administration: operators' alone, each form with what proves that it is ours."""

from litestar import Router

from metering.console.admin_access import access_page, access_request_page, approve_access, refuse_access
from metering.console.admin_agreements import convention_page, conventions_page, prices_page
from metering.console.admin_ledger import (
    dismiss_event,
    quarantine_page,
    reconciliation_page,
    refused_event_page,
    replay_events,
)
from metering.console.admin_limits import end_exception, grant_override, limits_page
from metering.console.admin_months import draft_month, finalise_month, month_page, months_page
from metering.console.admin_platform import end_notice, notices_page, overload_page, publish_notice, set_overload
from metering.console.admin_raises import decide_on_raise, raise_page, raises_page
from metering.console.administration import admin_page
from metering.console.guards import require_form_of, require_page
from metering.console.signing_in import to_sign_in
from metering.errors import Forbidden, Unauthorized
from metering.web import BODY_BYTES_MAX, knowing_changes
from reports.rendering import answer_error

PAGES = [
    admin_page, access_page, access_request_page, raises_page, raise_page, conventions_page, convention_page,
    prices_page, limits_page, overload_page, notices_page, quarantine_page, refused_event_page, reconciliation_page,
    months_page, month_page,
]  # fmt: skip
FORMS = [
    approve_access, refuse_access, decide_on_raise, grant_override, end_exception, set_overload, publish_notice,
    end_notice, replay_events, dismiss_event, draft_month, finalise_month,
]  # fmt: skip

admin_pages = Router(
    "/",
    route_handlers=[
        Router("/", route_handlers=PAGES, guards=[require_page("operator")]),
        Router("/", route_handlers=FORMS, guards=[require_form_of("operator")]),
    ],
    middleware=[knowing_changes],
    exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)
