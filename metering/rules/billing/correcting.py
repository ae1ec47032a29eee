"""Corrections: what documents said of a month, brought to what it comes to now.

A document never changes. Where usage comes late, lines that are no longer right are taken back and written anew, so
that over all documents of a month its lines add up to the month as it is rated now. Lines are compared as a whole, by
everything but their number and names: what stayed the same is not said again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from metering.rules.billing.documents import BillingDocument, DocumentLine
from metering.rules.rating.lines import LineKind
from metering.rules.rating.months import UNTAXED, AccountLine


class AccountKey(NamedTuple):
    """What documents are told apart by: the convention, how it is settled, and the currency."""

    convention: str | None
    settlement: str
    currency: str


Names = Mapping[str, str]
"""Ids of projects, or of models, to their names."""


def account_of(one: AccountLine) -> AccountKey:
    """The account that a rated line is on."""
    assert one.account.currency is not None
    return AccountKey(one.account.convention, one.account.settlement, one.account.currency)


def document_line(month: str, one: AccountLine, projects: Names, models: Names) -> DocumentLine:
    """A rated line as a document says it, without a number yet: unit prices are never negative, quantities are."""
    account, line = one.account, one.line
    assert account.vat is not None
    sign = -1 if line.nano < 0 else 1
    return DocumentLine(
        number=0,
        month=month,
        project=line.place.project,
        project_name=projects.get(line.place.project or ""),
        model=line.place.model,
        model_name=models.get(line.place.model or ""),
        meter=line.price.meter,
        kind=line.kind,
        used=line.used,
        quantity=sign * line.quantity,
        unit_price_nano=sign * line.nano,
        per=line.per,
        net_cents=line.cents,
        vat=account.vat if account.billing == "billed" else UNTAXED,
        price=line.price.id,
    )


def taken_back(line: DocumentLine) -> DocumentLine:
    """A line that cancels another."""
    return replace(line, used=-line.used, quantity=-line.quantity, net_cents=-line.net_cents)


def signed_lines(document: BillingDocument) -> Iterable[DocumentLine]:
    """Lines of a document as they count: those of a credit note, whose amounts are positive, the other way round."""
    return map(taken_back, document.lines) if document.kind == "credit_note" else document.lines


def corrections(documented: Iterable[DocumentLine], rated: Iterable[DocumentLine]) -> list[DocumentLine]:
    """Lines that bring what is documented of an account's month to what is rated: each pair, old before new."""
    missing: Counter[DocumentLine] = Counter()
    named: dict[DocumentLine, DocumentLine] = {}
    for sign, lines in ((-1, documented), (1, rated)):
        for line in lines:
            forward = _is_forward(line)
            known = line if forward else taken_back(line)
            key = replace(known, number=0, project_name=None, model_name=None)
            named[key] = known
            missing[key] += sign if forward else -sign
    found = [
        replace(named[key] if count > 0 else taken_back(named[key]), number=0)
        for key, count in missing.items()
        for _ in range(abs(count))
    ]
    return sorted(found, key=_order)


_NATURAL: Mapping[LineKind, int] = {"use": 1, "free": 1, "minimum": 1, "cap": -1}


def _is_forward(line: DocumentLine) -> bool:
    """Whether a line says something, rather than takes it back: no use is negative, and only a cap lowers."""
    return (line.used or line.quantity) * _NATURAL[line.kind] > 0


def _order(line: DocumentLine) -> tuple[str | int | bool, ...]:
    place = (line.project or "", line.model or "", line.meter, line.price, line.kind)
    return line.month, *place, line.unit_price_nano, _is_forward(line), line.quantity, line.used
