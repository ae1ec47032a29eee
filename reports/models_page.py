"""The page "Modèles": what is offered, under which licence, at which price, until when. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports import wording
from reports.choosing import group_label
from reports.limits_said import said_limit, said_place
from reports.selection import ZONE
from reports.standing import OfferedModel, OfferedPrice
from reports.wording import Language, say


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model; carbon None: it isn't measured. notice: when it is refused, or comes, and what replaces it."""

    id: str
    name: str
    status: str
    notice: str
    category: str
    publisher: str
    licence: str
    licence_url: str | None
    context: str | None
    operations: str
    aliases: str
    prices: tuple[str, ...]
    carbon: str | None
    limits: tuple[tuple[str, str], ...]


def models_page(
    offered: Sequence[OfferedModel], carbon_ng: Mapping[str, int], language: Language
) -> tuple[ModelCard, ...]:
    """The catalogue. carbon_ng: model to emissions of 1,000 tokens (ng CO2e), where they are known."""
    return tuple(_card(one, carbon_ng.get(one.id), language) for one in offered)


def _card(one: OfferedModel, carbon_ng: int | None, language: Language) -> ModelCard:
    context = one.context_tokens
    return ModelCard(
        id=one.id,
        name=one.name,
        status=say(language, f"models.status.{one.status}"),
        notice=_notice(one, language),
        category=one.category,
        publisher=one.publisher,
        licence=one.licence,
        licence_url=one.licence_url,
        context=None if context is None else wording.amount(context, "total_tokens", language),
        operations=", ".join(group_label(name, "operation", language) for name in one.operations),
        aliases=", ".join(one.aliases),
        prices=tuple(_price(price, language) for price in one.prices),
        carbon=None if carbon_ng is None else wording.mass(carbon_ng, language),
        limits=tuple((said_limit(rule, language), said_place(rule, language)) for rule in one.limits),
    )


def _notice(one: OfferedModel, language: Language) -> str:
    said = []
    if one.retires_at is not None:
        when = wording.moment(one.retires_at, ZONE, language)
        said.append(say(language, "models.retires", when=when, zone=ZONE.key))
        if one.successor is not None:
            said.append(say(language, "models.successor", successor=one.successor))
    elif one.status == "coming" and one.available_from is not None:
        when = wording.moment(one.available_from, ZONE, language)
        said.append(say(language, "models.from", when=when, zone=ZONE.key))
    return ", ".join(said)


def _price(price: OfferedPrice, language: Language) -> str:
    amount = wording.money(price.nano, price.currency, language)
    if price.is_tiered:
        amount = say(language, "models.price.tiered", price=amount)
    return say(
        language, "models.price.said", meter=say(language, f"models.meter.{price.meter}"), price=amount, unit=price.unit
    )
