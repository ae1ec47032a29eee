"""How energy, emissions and emission factors are said, with their ranges. Pure."""

from collections.abc import Callable, Mapping

from reports import wording
from reports.carbon import FactorSource
from reports.shown import Measured
from reports.wording import Language, say

Say = Callable[[int, Language], str]
Figures = Mapping[str, int | None]
"""What is known of something by name, as `CarbonRow.figures` has it."""


def measured(value: int | None, lower: int | None, upper: int | None, said: Say, language: Language) -> Measured:
    """A value and its range in words; without a range where bounds aren't known."""
    if value is None:
        return Measured(None)
    if lower is None or upper is None:
        return Measured(said(value, language))
    return Measured(said(value, language), wording.between(said(lower, language), said(upper, language), language))


def energy_of(figures: Figures, language: Language) -> Measured:
    """Energy of the building for requests."""
    bounds = (figures["energy_lower_uj"], figures["energy_upper_uj"])
    return measured(figures["energy_uj"], *bounds, wording.energy, language)


def emissions_of(figures: Figures, name: str, language: Language, said: Say = wording.bare_mass) -> Measured:
    """Emissions of one kind: `total` (use by the grid and manufacture), `location`, `market` (no range), `embodied`."""
    bounds = (figures.get(f"{name}_lower_ng"), figures.get(f"{name}_upper_ng"))
    return measured(figures[f"{name}_ng"], *bounds, said, language)


def said_factor(one: FactorSource, language: Language) -> tuple[str, str]:
    """Values of emission factors of one origin in g CO2e/kWh, and where they are from."""
    values = (one.lowest_ugco2e_per_kwh, one.highest_ugco2e_per_kwh)
    low, high = (wording.scaled(value, 10**6, language) for value in values)
    source = f"{one.source} {one.version}"
    if one.is_last_resort:
        source = f"{source} ({say(language, 'carbon.method.last_resort')})"
    return low if low == high else say(language, "between", lower=low, upper=high), source
