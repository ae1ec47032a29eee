"""Envoy's rate limit service in Jauge's words: may this request run, would one run, and what was used.

A refusal is an answer (OVER_LIMIT), whatever its reason: an unknown key must not pass where Envoy lets requests pass
that nobody could decide on. Errors are left for wrong descriptors, and for stores that are away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import anyio.to_thread
import structlog

from metering.catalog.keys import check_key
from metering.catalog.snapshot import CatalogReader
from metering.envoy.questions import QUANTITY_OF, Question, Wanted, read_entries, read_questions
from metering.envoy.responses import REFUSED, Refusal, Verdict, response_of, verdict_of
from metering.errors import Forbidden, JaugeError, Unavailable, Unprocessable
from metering.quotas.service import Ask, Decision, QuotaService, Reason
from metering.rules.counting import Estimate
from metering.rules.limits import Meter, Request
from metering.rules.quantities import EXPECTED

HOLD_S = 600
"""Longest time between a request and what it used; what comes later still counts, but wasn't held any more."""

OF_NO_METER: frozenset[Reason] = frozenset({"envelope_used_up", "unknown_price", "unknown_carbon"})
"""Refusals for money or carbon, which no descriptor can name: they are told whatever is asked about."""

NOTHING_USED: Mapping[str, int] = dict.fromkeys(QUANTITY_OF.values(), 0)

log = structlog.get_logger(__name__)


class RateLimits:
    """Answers Envoy from the service that the gateway's own routes ask."""

    def __init__(
        self, quotas: QuotaService, catalog: CatalogReader, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._quotas = quotas
        self._catalog = catalog
        self._now = now
        self._releasing: set[asyncio.Task[None]] = set()  # a task that nobody keeps may be collected under way

    async def answer(self, call: Any) -> Any:
        """The RateLimitResponse to a RateLimitRequest.

        Who only looks is answered first: where that refuses, nothing is held. Raises: BadRequest for descriptors that
        are wrong whatever the request is; Unavailable.
        """
        questions = read_questions(call)
        verdicts = [Verdict()] * len(questions)
        for at, question in enumerate(questions):
            if question.hits == 0:
                verdicts[at] = await _decided(self._look(question))
        for at, question in enumerate(questions):
            if question.is_asking:
                is_dry = any(verdict.refusal is not None for verdict in verdicts)
                verdicts[at] = await _decided(self._ask(question, is_dry=is_dry))
        if counting := [at for at, question in enumerate(questions) if question.is_counting]:
            counted = await _decided(self._count([questions[at] for at in counting]))
            if counted.refusal is not None:  # after a request nobody reads the answer
                log.warning("usage_not_counted", code=counted.refusal.code)
            for at in counting:
                verdicts[at] = counted
        return response_of(verdicts)

    async def _ask(self, question: Question, *, is_dry: bool) -> Verdict:
        """Hold a request. Where no reservation is named nobody can settle it, so it is counted at once."""
        wanted = read_entries(question.entries)
        request = await self._request_of(wanted)
        ask = Ask(wanted.reservation or uuid4().hex, request, HOLD_S, least_of(request.operation))
        try:
            decision = await self._quotas.reserve(ask, is_dry=is_dry)
            if wanted.reservation is None and decision.reason == "within_limits" and not is_dry:
                await self._count_now(ask)
        except asyncio.CancelledError:  # its client has left, or Envoy waits no longer
            if not is_dry:
                self._give_back(ask)
            raise
        is_held = decision.is_allowed and not is_dry
        return verdict_of(decision, self._now(), wanted.reservation if is_held else None)

    async def _count_now(self, ask: Ask) -> None:
        try:
            await self._quotas.commit(ask.reservation, ask.request, {**NOTHING_USED, "requests": 1})
        except Unavailable:  # it was let in; its hold ends by itself
            log.warning("admitted_uncounted", tenant=ask.request.tenant, reservation=ask.reservation)

    def _give_back(self, ask: Ask) -> None:
        """Release what may have been held of a request that doesn't run; nobody waits for it."""

        async def release() -> None:
            with suppress(JaugeError):
                await self._quotas.release(ask.request.tenant, ask.reservation)

        releasing = asyncio.create_task(release())
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)

    async def _look(self, question: Question) -> Verdict:
        """Whether a request would run, or whether one meter has room; nothing is held."""
        request = await self._request_of(read_entries(question.entries))
        decision = await self._quotas.reserve(Ask("", request, 1, least_of(request.operation)), is_dry=True)
        return verdict_of(decision if question.meter is None else _about(decision, question.meter), self._now())

    async def _count(self, questions: Sequence[Question]) -> Verdict:
        """Count what was used: what is told of one reservation together, because it counts once.

        Of a reservation, what isn't told counts as it was held; without one, nothing counts but what is told.
        """
        told: dict[tuple[Request, str | None], dict[str, int]] = {}
        for question in questions:
            assert question.meter is not None
            wanted = read_entries(question.entries)
            request = await self._request_of(wanted, has_run=True)
            amounts = told.setdefault(
                (request, wanted.reservation), {} if wanted.reservation is not None else dict(NOTHING_USED)
            )
            name = QUANTITY_OF[question.meter]
            amounts[name] = amounts.get(name, 0) + question.hits
        for (request, reservation), amounts in told.items():
            await self._quotas.commit(reservation or uuid4().hex, request, amounts)
        return Verdict()

    async def _request_of(self, wanted: Wanted, *, has_run: bool = False) -> Request:
        """Who asks for what. has_run: what was used counts, even if its holder has lost the right to it since.

        Raises: Unauthorized, Forbidden, Unprocessable, Unavailable.
        """
        if wanted.key_sha256 is not None:
            digest, snapshot = bytes.fromhex(wanted.key_sha256), self._catalog.current()
            if digest not in snapshot.keys:  # this process's catalogue may be a moment old
                snapshot = await anyio.to_thread.run_sync(self._catalog.refresh)
            known = snapshot.keys.get(digest) if has_run else None
            key = known or check_key(snapshot, digest, self._now()).key
            project = key.project or wanted.project
            return Request(key.tenant, project, key.account, key.id, wanted.model, None, wanted.operation)
        tenant = self._catalog.current().tenants.get(wanted.tenant or "")
        if tenant is None:
            raise Unprocessable("missing_key", "Whose request?", field="tenant", expected="a known one, or a key")
        if tenant.status != "active" and not has_run:
            raise Forbidden("tenant_suspended", "The administration is suspended.")
        return Request(tenant.id, wanted.project, wanted.user, wanted.api_key, wanted.model, None, wanted.operation)


def least_of(operation: str | None) -> Estimate:
    """The least that a request uses. Before the answer nobody tells more, and without it a full limit lets it in."""
    expected = EXPECTED[operation or "other"]
    return Estimate(
        prompt_tokens=int("input_tokens" in expected),
        max_output_tokens=int("output_tokens" in expected),
        audio_ms=int("audio_ms" in expected),
        inputs=int(operation == "embedding"),
        pages=int("pages" in expected),
        searches=int("searches" in expected),
    )


async def _decided(deciding: Awaitable[Verdict]) -> Verdict:
    """A verdict: what a request is refused for is one as well. Raises: Unavailable."""
    try:
        return await deciding
    except Unavailable:
        raise
    except JaugeError as error:
        return Verdict(Refusal(error.status, error.code, error.detail))


def _about(decision: Decision, meter: Meter) -> Decision:
    """A decision as far as one meter goes."""
    if not decision.figures or decision.reason in OF_NO_METER:
        return decision
    figures = [figure for figure in decision.figures if figure.limit.meter == meter]
    flags = {figure.flag for figure in figures} & REFUSED
    if not flags:
        return decision._replace(is_allowed=True, reason="within_limits", figures=figures, retry_after_s=None)
    return decision._replace(figures=figures, reason="forbidden" if "forbidden" in flags else "limit_reached")
