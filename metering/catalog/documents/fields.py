"""What fields of documents are made of, and the form that all documents have."""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct
from stdnum.exceptions import ValidationError as NumberError
from stdnum.fr import siret as siret_number
from stdnum.fr import tva as vat_number

ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._:/+~=-]*$"

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=ID_PATTERN, description="Opaque id.")]
ModelName = Annotated[str, Meta(min_length=1, max_length=128, pattern=NAME_PATTERN, description="As in events.")]
Line = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="One line.")]
Paragraph = Annotated[str, Meta(min_length=1, max_length=2_000)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]
Siret = Annotated[str, Meta(pattern="^[0-9]{14}$", description="14 digits, with a valid check digit.")]
VatNumber = Annotated[str, Meta(pattern="^[A-Z]{2}[A-Z0-9.+*-]{2,28}$", description="Country, then the number.")]
Domain = Annotated[str, Meta(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=253)]
Email = Annotated[str, Meta(min_length=3, max_length=254, description="Address of mail.")]
Address = Annotated[str, Meta(pattern="^https?://[^ ]+$", max_length=2_000)]
Instant = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Units = Annotated[int, Meta(ge=1, le=2**53 - 1, description="Base units of a meter.")]
Currency = Literal["EUR", "CHF"]
BuyerCode = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="As the buyer names it.")
]
Tier = Literal["free", "soft", "guaranteed"]
Outage = Literal["local", "open", "closed"]
Language = Literal["fr", "en"]

EUR_DECIMALS = 9
"""1 EUR is 10^9 nEUR."""
CENT_DECIMALS = 2
GRAM_DECIMALS = 6
"""1 g is 10^6 µg."""
VAT_DECIMALS = 2
"""Rates of VAT are kept in hundredths of a percent."""
PUE_DECIMALS = 6
"""Power usage effectiveness is kept in millionths."""
RATE_MAX = 10_000
"""More EUR than that for one unit is a slip of the pen."""
YEAR_MIN, YEAR_MAX = 1970, 8999
"""Years of dates and instants: those at the ends of the calendar leave it in another time zone, in the database or
here, and whoever reads them fails."""


class Document(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A document: closed, so that a misspelt field is an error and not a surprise."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            texts = value if isinstance(value, list) else [value]
            if any(isinstance(text, str) and (text != text.strip() or "\0" in text) for text in texts):
                raise ValueError(f"{name}: expected text without spaces around it")
            if isinstance(value, date) and not is_bounded(value):
                raise ValueError(f"{name}: expected a year from {YEAR_MIN} to {YEAR_MAX}")
        for field, expected in self.faults():
            raise ValueError(f"{field}: expected {expected}")

    def faults(self) -> Iterator[tuple[str, str]]:
        """What makes no sense in it beyond its form: (field, what was expected)."""
        yield from ()


def is_bounded(moment: date) -> bool:
    """Whether a date or an instant can be read in any time zone."""
    return YEAR_MIN <= moment.year <= YEAR_MAX


def bad_siret(field: str, number: str | None) -> Iterator[tuple[str, str]]:
    if number is None:
        return
    try:
        siret_number.validate(number)
    except NumberError:
        yield field, "a SIRET, whose check digit is right"


def bad_vat_number(number: str | None) -> Iterator[tuple[str, str]]:
    """The check digits of French ones are known; of others the form is."""
    if number is not None and number.startswith("FR") and not vat_number.is_valid(number):
        yield "vat_number", "a VAT number, whose check digits are right"


def cents(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.scaleb(CENT_DECIMALS))


def in_units(amount: Decimal, decimals: int) -> bool:
    """Whether an amount is a bounded number of EUR or g, and a whole one of its base unit."""
    return amount.is_finite() and 0 <= amount <= 10**9 and amount == amount.quantize(Decimal(1).scaleb(-decimals))
