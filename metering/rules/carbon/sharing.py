"""One window of one deployment: its energy to the requests in flight, to the microjoule.

This is the definition: `explain` shows it for one event, and `metering.carbon.attribution` does the same in columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from metering.rules.carbon.apportioning import shared
from metering.rules.carbon.integration import WindowEnergy
from metering.rules.carbon.splitting import Split, split
from metering.rules.carbon.tiers import Tier, worst_tier
from metering.rules.carbon.weights import WORK_MAX, Presence, Request, TokenCosts, Work, presence, work_within


@dataclass(frozen=True, slots=True)
class Metered:
    """A GPU's window and the idle power (P0) that splits it; None: unknown."""

    window: WindowEnergy
    idle_power_mw: int | None


@dataclass(frozen=True, slots=True)
class Share:
    """What a request answers for in one window, and the weights behind it.

    dynamic_uj, busy_uj: None where no GPU's energy is known. lower_uj, upper_uj: with what the meter and κ may be off.
    presence_us: its part of the busy time. plain, weighed: see `Work`; presence: see `Presence`.
    """

    identity: bytes
    dynamic_uj: int | None
    busy_uj: int | None
    lower_uj: int
    upper_uj: int
    presence_us: int
    plain: int
    weighed: int
    presence: int


@dataclass(frozen=True, slots=True)
class SharedWindow:
    """A window of a deployment, shared: energy_uj = Σ shares + idle_uj + unallocated_uj, exactly.

    energy_uj: sum of its GPUs' known energies, None if none is known. shares: by identity.
    """

    starts_us: int
    ends_us: int
    energy_uj: int | None
    lower_uj: int
    upper_uj: int
    idle_uj: int
    unallocated_uj: int
    busy_us: int
    tier: Tier
    shares: tuple[Share, ...]


def share_window(gpus: Sequence[Metered], requests: Sequence[Request], costs: TokenCosts) -> SharedWindow:
    """Share the energy of a deployment's GPUs in one window, the same for all, among its requests.

    requests: in any order; those that don't meet the window are left out.
    """
    windows = [gpu.window for gpu in gpus]
    starts_us, ends_us = windows[0].starts_us, windows[0].ends_us
    assert all((window.starts_us, window.ends_us) == (starts_us, ends_us) for window in windows)
    present = sorted(
        (one for one in requests if one.started_us < ends_us and one.end_us > starts_us), key=lambda one: one.identity
    )
    time = presence(present, starts_us, ends_us)
    known = [window.energy_uj for window in windows if window.energy_uj is not None]
    totals = _Totals(
        energy_uj=sum(known) if known else None,
        lower_uj=sum(window.lower_uj for window in windows),
        upper_uj=sum(window.upper_uj for window in windows),
        parts=_summed([_split(gpu, time.busy_us) for gpu in gpus]),
    )
    works = works_of([work_within(one, costs, starts_us, ends_us) for one in present], time, costs)
    return SharedWindow(
        starts_us=starts_us,
        ends_us=ends_us,
        energy_uj=totals.energy_uj,
        lower_uj=totals.lower_uj,
        upper_uj=totals.upper_uj,
        idle_uj=totals.parts.idle_uj,
        unallocated_uj=totals.parts.unallocated_uj,
        busy_us=time.busy_us,
        tier=worst_tier(window.tier for window in windows),
        shares=tuple(_shares(totals, present, works, time, costs.spread_per_mille)) if present else (),
    )


def works_of(works: Sequence[Work | None], time: Presence, costs: TokenCosts) -> list[Work]:
    """Works of a window's requests; whose work isn't known is held to have worked as the others, for its time.

    An aborted stream without counts has burnt energy all the same. Where nobody's work is known, time decides.
    """
    timed = [
        None if work is None else work.with_presence(part, costs) for work, part in zip(works, time.parts, strict=True)
    ]
    done = sum(work.plain + work.weighed for work in timed if work is not None)
    parts = sum(part for work, part in zip(works, time.parts, strict=True) if work is not None)
    return [
        Work(min(part * done // parts, WORK_MAX) if parts else 0, 0) if work is None else work
        for work, part in zip(timed, time.parts, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Totals:
    """A window's energy over all GPUs of the deployment."""

    energy_uj: int | None
    lower_uj: int
    upper_uj: int
    parts: Split


def _split(gpu: Metered, busy_us: int) -> Split:
    window = gpu.window
    return split(
        window.energy_uj or 0,
        gpu.idle_power_mw,
        covered_us=window.covered_us,
        window_us=window.ends_us - window.starts_us,
        busy_us=busy_us,
    )


def _summed(parts: Sequence[Split]) -> Split:
    return Split(
        sum(one.dynamic_uj for one in parts),
        sum(one.busy_uj for one in parts),
        sum(one.idle_uj for one in parts),
        sum(one.unallocated_uj for one in parts),
    )


def _shares(
    totals: _Totals, requests: Sequence[Request], works: Sequence[Work], time: Presence, spread_per_mille: int
) -> list[Share]:
    keys = [request.identity for request in requests]
    dynamic = shared(totals.parts.dynamic_uj, _weights(works, time, 1_000, 1_000), keys)
    busy = shared(totals.parts.busy_uj, time.parts, keys)
    moments = shared(time.busy_us, time.parts, keys)
    # A share moves one way only as κ grows, so that the two ends of κ bound it.
    low = _quotients(totals.parts.dynamic_uj, _weights(works, time, 1_000, spread_per_mille))
    high = _quotients(totals.parts.dynamic_uj, _weights(works, time, spread_per_mille, 1_000))
    shares = []
    for at, request in enumerate(requests):
        least = min(dynamic[at], low[at], high[at]) + busy[at]
        most = max(dynamic[at], low[at] + 1, high[at] + 1) + busy[at]
        lower_uj, upper_uj = _bounds(totals, least, most, time.parts[at], sum(time.parts))
        is_known = totals.energy_uj is not None
        shares.append(
            Share(
                identity=request.identity,
                dynamic_uj=dynamic[at] if is_known else None,
                busy_uj=busy[at] if is_known else None,
                lower_uj=lower_uj,
                upper_uj=upper_uj,
                presence_us=moments[at],
                plain=works[at].plain,
                weighed=works[at].weighed,
                presence=time.parts[at],
            )
        )
    return shares


def _weights(works: Sequence[Work], time: Presence, times: int, over: int) -> Sequence[int]:
    """Works with κ multiplied by times/over; presence where there is no work at all."""
    weights = [work.plain + work.weighed * times // over for work in works]
    return weights if any(weights) else time.parts


def _quotients(total: int, weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    return [total * weight // whole for weight in weights]


def _bounds(totals: _Totals, least_uj: int, most_uj: int, part: int, parts: int) -> tuple[int, int]:
    """Bounds of a share of between least_uj and most_uj, of a meter that may be off itself.

    The meter's bounds are relative to its energy; where that is 0 or unknown, time alone shares its upper bound.
    """
    if not totals.energy_uj:
        return 0, -(-totals.upper_uj * part // parts)
    return least_uj * totals.lower_uj // totals.energy_uj, -(-most_uj * totals.upper_uj // totals.energy_uj)
