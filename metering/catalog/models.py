"""Which model answers to a name, from when to when, and for whom.

Questions to a snapshot only, so that the hot path can ask them: no database, no clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

from metering.catalog.documents import Category, Experiment, Model, Notice, Retirement
from metering.catalog.snapshot import Snapshot
from metering.errors import Forbidden, Gone, NotFound, Unprocessable
from metering.rules.retirement import Retiring

Status = Literal["available", "coming", "retiring", "retired"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name means: `kind` and `subject` say whether a model or a category was named, its aliases apart.

    model answers. retirement is that of what was named, once announced: who names a category isn't concerned by the
    end of a model of it.
    """

    requested: str
    kind: Retiring
    subject: str
    model: Model
    retirement: Retirement | None

    def status(self, now: datetime) -> Status:
        """Whether what was named can be called now, and for how long."""
        if self.retirement is not None:
            return "retiring" if now < self.retirement.retires_at else "retired"
        return "coming" if _is_coming(self.model, now) else "available"


def resolve(snapshot: Snapshot, name: str, *, tenant: str | None = None, now: datetime) -> Resolution:
    """The model that answers to a name now; for an administration also whether it may call it.

    Raises: NotFound; Gone from the end of the model or category on; Forbidden before the model is there for this
    administration, or where an experiment leaves it out.
    """
    found = look_up(snapshot, name, now)
    ends = (found.retirement, retirement_of(snapshot, "model", found.model.id, now))
    for retirement in ends if found.kind == "category" else ends[:1]:
        if retirement is not None and retirement.retires_at <= now:
            raise _gone(retirement)
    if tenant is not None:
        _check_audience(snapshot, found.model, tenant, now)
    return found


def check_operation(model: Model, operation: str | None) -> None:
    """Raises: Unprocessable for an operation that a model isn't called for; None isn't asked about."""
    if operation is not None and operation not in model.operations:
        raise Unprocessable(
            "operation_not_offered",
            f"The model {model.id} can't be called for this.",
            field="operation",
            expected=", ".join(model.operations),
        )


def look_up(snapshot: Snapshot, name: str, now: datetime) -> Resolution:
    """What a name means, whether or not it may be called. Raises: NotFound."""
    alias = snapshot.aliases.get(name)
    subject = (alias.model or alias.category or "") if alias else name
    if (model := snapshot.models.get(subject)) is not None:
        return Resolution(name, "model", subject, model, retirement_of(snapshot, "model", subject, now))
    category = snapshot.categories.get(subject)
    answering = None if category is None else _answering(snapshot, category, now)
    if answering is None:
        raise NotFound("unknown_model", "No such model or category.", field="model")
    return Resolution(name, "category", subject, answering, retirement_of(snapshot, "category", subject, now))


def retirement_of(snapshot: Snapshot, kind: Retiring, subject: str, now: datetime) -> Retirement | None:
    """The end of a model or category, once it is announced."""
    found = snapshot.retirements.get((kind, subject))
    return found if found is not None and found.announced_at <= now else None


def retirements_announced(snapshot: Snapshot, now: datetime) -> list[Retirement]:
    """Every end that is announced, those to come and those that were, in the order of their dates."""
    announced = [one for one in snapshot.retirements.values() if one.announced_at <= now]
    return sorted(announced, key=lambda one: (one.retires_at, one.kind, one.subject))


def retirement_headers(retirement: Retirement | None) -> dict[str, str]:
    """Headers of an answer about what retires: Deprecation (RFC 9745), Sunset (RFC 8594) and its successor."""
    if retirement is None:
        return {}
    headers = {
        "Deprecation": f"@{int(retirement.announced_at.timestamp())}",
        "Sunset": format_datetime(retirement.retires_at.astimezone(UTC), usegmt=True),
    }
    if retirement.successor is not None:
        headers["Link"] = f'</v1/models/{retirement.successor}>; rel="successor-version"'
    return headers


def notices_for(snapshot: Snapshot, tenant: str | None, now: datetime) -> list[Notice]:
    """Notices that are live or to come, by their beginning: an administration's; None is the platform's staff."""
    current = [
        one
        for one in snapshot.notices
        if (one.ends_at is None or now < one.ends_at) and (tenant is None or not one.tenants or tenant in one.tenants)
    ]
    return sorted(current, key=lambda one: (one.starts_at, one.id))


def _answering(snapshot: Snapshot, category: Category, now: datetime) -> Model | None:
    """The model that answers for a category. A category outlives its model: the successor answers from its end on."""
    if category.model is None:
        return None
    retirement = retirement_of(snapshot, "model", category.model, now)
    if retirement is not None and retirement.retires_at <= now and retirement.successor is not None:
        return snapshot.models[retirement.successor]
    return snapshot.models[category.model]


def _gone(retirement: Retirement) -> Gone:
    after = f"; its successor is {retirement.successor}" if retirement.successor else ""
    return Gone(
        "model_retired",
        f"The {retirement.kind} {retirement.subject} retired on {retirement.retires_at.isoformat()}{after}.",
        field="model",
        expected=retirement.successor,
    )


def _is_coming(model: Model, now: datetime) -> bool:
    return model.available_from is not None and now < model.available_from


def _check_audience(snapshot: Snapshot, model: Model, tenant: str, now: datetime) -> None:
    """Raises: Forbidden unless an administration may call a model now."""
    about = [one for one in snapshot.experiments.values() if model.id in one.models]
    if _is_coming(model, now) and not any(tenant in one.early_access for one in about):
        assert model.available_from is not None
        raise Forbidden(
            "model_not_available_yet",
            f"The model {model.id} is available from {model.available_from.isoformat()}.",
            field="model",
        )
    dated = [one for one in about if one.phases]
    if not dated or any(_lets_in(one, tenant, now) for one in dated):
        return
    if all(one.phases[-1].ends_at <= now for one in dated):
        raise Forbidden("experiment_over", f"The experiment with {model.id} is over.", field="model")
    raise Forbidden("experiment_restricted", f"The experiment with {model.id} is not open to you now.", field="model")


def _lets_in(experiment: Experiment, tenant: str, now: datetime) -> bool:
    """Whether the phase of now takes an administration. Early access holds before the first phase, too."""
    if now < experiment.phases[0].starts_at:
        return tenant in experiment.early_access
    current = next((one for one in experiment.phases if one.starts_at <= now < one.ends_at), None)
    return current is not None and (current.phase != "restricted" or tenant in current.tenants)
