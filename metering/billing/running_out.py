"""Telling that the envelope of a convention won't last to the end of its term."""

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from metering.billing.envelopes import EnvelopeUse, Part, envelope_use
from metering.billing.prices import tariffs_of
from metering.catalog.snapshot import CatalogReader
from metering.database import Actor, transaction
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.rules.billing.envelopes import warning_due
from metering.rules.limits import Meter
from metering.rules.periods import PARIS

ANNOUNCER = Actor("envelopes")
EVENT, MAIL = "envelope.running_out", "envelope_running_out"


def announce_envelopes(engine: sa.Engine, catalog: CatalogReader, now: datetime) -> int:
    """Tell managers and operators, `WARNING_DAYS` before an envelope runs out by its forecast, once each.

    A forecast moves from day to day: what was told of a version of a convention isn't told again. Returns how many
    envelopes were told of. Raises: Unavailable.
    """
    snapshot, today = catalog.refresh(), now.astimezone(PARIS).date()
    tariffs = tariffs_of(snapshot)
    told = 0
    for versions in snapshot.conventions.values():
        for convention in versions:
            is_in_force = convention.effective_on <= today <= convention.ends_on
            if not is_in_force or (convention.envelope_eur is None and convention.envelope_gco2e is None):
                continue
            with transaction(engine, snapshot=True, actor=ANNOUNCER) as connection:
                told += _announce(connection, envelope_use(connection, tariffs, convention, now), today)
    return told


def _announce(connection: sa.Connection, use: EnvelopeUse, today: date) -> int:
    parts: tuple[tuple[Meter, Part | None], ...] = (("cost_neur", use.money), ("carbon_ugco2e", use.carbon))
    return sum(_tell(connection, use, meter, part, today) for meter, part in parts if part is not None)


def _tell(connection: sa.Connection, use: EnvelopeUse, meter: Meter, part: Part, today: date) -> bool:
    step = warning_due(part.forecast, today)
    if step is None:
        return False
    assert part.forecast is not None
    convention, ahead = use.convention, part.forecast
    key = f"{convention.id}/{convention.version}/{meter}/{step}"
    known: dict[str, Any] = {
        "meter": meter, "envelope": part.envelope, "consumed": part.consumed, "runs_out_on": ahead.runs_out_on,
        "earliest": ahead.earliest, "latest": ahead.latest, "ends_on": convention.ends_on,
        "overage": convention.overage,
    }  # fmt: skip
    enqueue_event(
        connection, EVENT, tenant=convention.tenant, key=key,
        payload={"convention": convention.id, "version": convention.version, "days": step} | known,
    )  # fmt: skip
    told = [
        enqueue_mail(
            connection, key, recipient=recipient, subject=MAIL, tenant=convention.tenant,
            payload={"title": convention.title} | known,
        )
        for recipient in (f"managers:{convention.tenant}", "operators")
    ]  # fmt: skip
    return any(told)
