"""A document as JSON: all that it holds, in base units, so that it can be read back whole. Pure.

Amounts are integers of cents, prices of 10^-9 of the currency, energy of µJ, carbon of ng CO2e; null is unknown.
"""

import msgspec

from metering.rules.billing.documents import BillingDocument

FORMAT = "jauge-document/1"


def json_bytes(document: BillingDocument) -> bytes:
    """A document's JSON, in the order of its fields, for people to read too."""
    content = {"format": FORMAT, **msgspec.to_builtins(document)}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def document_of(content: bytes) -> BillingDocument:
    """The document that a JSON file holds. Raises: ValueError where the file is of another form."""
    fields = msgspec.json.decode(content)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise ValueError(f"Not a document of the form {FORMAT}.")
    return msgspec.convert(fields, BillingDocument)
