"""Names of countries in the language of a document: ISO 3166-1, with the translations of the package that has it."""

import gettext
from functools import cache

from reports.wording import Language


@cache
def country_name(code: str, language: Language) -> str:
    """The usual name of a country by its code of two letters; a code that the standard doesn't have stays as it is."""
    import pycountry  # noqa: PLC0415 - half a second that only documents to other countries need

    country = pycountry.countries.get(alpha_2=code)
    if country is None:
        return code
    name: str = getattr(country, "common_name", country.name)
    # English is what the package's names are in.
    return gettext.translation("iso3166-1", pycountry.LOCALES_DIR, [language], fallback=True).gettext(name)
