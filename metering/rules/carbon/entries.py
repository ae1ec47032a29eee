"""What is posted of an hour: whose it is, and what it adds."""

from typing import Literal, NamedTuple

from metering.rules.carbon.tiers import Tier

Part = Literal["use", "idle", "unallocated"]


class Key(NamedTuple):
    """What an entry is posted for: an agent's use of a model in an hour, or what is nobody's; null is unknown."""

    part: Part
    tenant: str | None
    project: str | None
    user: str | None
    api_key: str | None
    model: str | None
    operation: str | None
    tier: Tier
    factors: tuple[int, ...]


class Sums(NamedTuple):
    """What an entry adds; null is unknown.

    Energy of the GPUs alone, then of the facility with its bounds, in µJ; emissions in ng CO2e: of use by the grid
    (location) and by contract (market), and of making the machines.
    """

    requests: int | None
    gpu_energy_uj: int | None
    energy_uj: int | None
    energy_lower_uj: int | None
    energy_upper_uj: int | None
    location_ng: int | None
    location_lower_ng: int | None
    location_upper_ng: int | None
    market_ng: int | None
    embodied_ng: int | None
    embodied_lower_ng: int | None
    embodied_upper_ng: int | None

    def negated(self) -> "Sums":
        """What takes these back."""
        return Sums(*(None if value is None else -value for value in self))


Entry = tuple[Key, Sums]
