"""Ending links to charts before their time, from the page "Quotas et clés"."""

from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, Router, post

from metering.console.acting import Form, acted, form_of
from metering.console.guards import require_form_of
from metering.console.signing_in import to_sign_in
from metering.embeds import end_embeds
from metering.errors import Forbidden, Unauthorized
from metering.visiting import Said
from metering.web import BODY_BYTES_MAX, caller_of, caller_within
from reports.rendering import answer_error


@post("/quotas/charts/end", guards=[require_form_of("operator", "manager")], include_in_schema=False)
async def end_charts(request: Request[Any, Any, Any]) -> Response[Any]:
    """End every link of an administration that was made until now."""

    def act(form: Form) -> Said:
        tenant = form.get("tenant", "")
        end_embeds(request.app.state, caller_within(request, tenant), tenant)
        return Said("done", "charts.ended")

    form = await form_of(request)
    chosen = "" if caller_of(request).tenant else "?" + urlencode({"tenant": form.get("tenant", "")})
    return await acted(request, form, act, back=f"/quotas{chosen}")


chart_forms = Router(
    "/",
    route_handlers=[end_charts],
    exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)
