"""Reconciling every day, and telling once of what differs."""

import hashlib
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from metering.billing.prices import tariffs_of
from metering.billing.rating import read_month
from metering.catalog.snapshot import CatalogReader
from metering.database import transaction
from metering.metrics import DRIFT, RECONCILED
from metering.outbox.queue import enqueue_mail
from metering.reconciliation.proof import Proof, prove
from metering.rules.periods import PARIS


def reconcile_month(engine: sa.Engine, catalog: CatalogReader, now: datetime) -> Proof:
    """Compare the month that yesterday was in; set the figures for Prometheus, and mail the operators what is new.

    Safe to run as often as one likes: the same differences are told once. Raises: Unavailable.
    """
    yesterday = (now - timedelta(days=1)).astimezone(PARIS)
    tariffs = tariffs_of(catalog.refresh())
    with transaction(engine, snapshot=True) as connection:
        proof = prove(connection, tariffs, read_month(f"{yesterday:%Y-%m}"))
    RECONCILED.set(int(proof.is_clean))
    differing = [step for step in proof.steps if step.drifts]
    for step in proof.steps:
        DRIFT.labels(step.name, step.against).set(step.drifts)
    if differing:
        digest = hashlib.sha256(msgspec.json.encode([step.named for step in differing])).hexdigest()[:32]
        payload = {
            "period": proof.period,
            "drifts": sum(step.drifts for step in differing),
            "places": ", ".join(f"{step.name} / {step.against}" for step in differing),
        }
        with transaction(engine) as connection:
            enqueue_mail(
                connection, f"{proof.period}/{digest}", recipient="operators", subject="reconciliation_drift",
                payload=payload,
            )  # fmt: skip
    return proof
