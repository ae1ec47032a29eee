"""Corrections and voids over HTTP."""

from typing import Any

import msgspec
from litestar import Request, Router, post
from litestar.params import JSONBody

from metering.ledger.corrections import Correction
from metering.web import TOKEN_SECURITY, require


class VoidRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The event to void, why, and who says so. `correction_id`, chosen by the caller, makes the call safe to repeat."""

    source: str
    id: str
    reason: str
    author: str
    correction_id: str | None = None


class CorrectionRequest(VoidRequest, forbid_unknown_fields=True, kw_only=True):
    """What an event should count for; quantities that are absent stay as they are."""

    quantities: dict[str, int]


@post("/v1/corrections", summary="Correct quantities of an event", sync_to_thread=True)
def post_correction(request: Request[Any, Any, Any], data: JSONBody[CorrectionRequest]) -> Correction:
    correction: Correction = request.app.state.corrections.correct(
        data.source, data.id, data.quantities, reason=data.reason, author=data.author, id=data.correction_id
    )
    return correction


@post("/v1/voids", summary="Make an event count for nothing", sync_to_thread=True)
def post_void(request: Request[Any, Any, Any], data: JSONBody[VoidRequest]) -> Correction:
    correction: Correction = request.app.state.corrections.void(
        data.source, data.id, reason=data.reason, author=data.author, id=data.correction_id
    )
    return correction


ledger_router = Router(
    "/",
    route_handlers=[post_correction, post_void],
    guards=[require("operator")],
    security=TOKEN_SECURITY,
    tags=["ledger"],
)
