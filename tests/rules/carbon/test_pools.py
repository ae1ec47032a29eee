"""What a pool of GPUs used is shared among its claims, in every unit, to the last one."""

from hypothesis import given
from hypothesis import strategies as st

from metering.rules.carbon.entries import Key
from metering.rules.carbon.factors import HourFactor
from metering.rules.carbon.hardware import LIFETIME_YEARS, manufacture
from metering.rules.carbon.impacts import Bounded, Factor, carbon_ng, embodied_ng, facility_energy
from metering.rules.carbon.pools import Claim, Pool, entries_of

ENERGY_UJ_MAX = 10**13

NOTHING = Bounded(0, 0, 0)
FRANCE = HourFactor(Factor(21_700_000, 19_500_000, 23_900_000), (4, 5))
CONTRACT = HourFactor(Factor(0, 0, 0), (9,))
PUE = Bounded(1_250_000, 1_100_000, 1_600_000)


@st.composite
def bounded(draw: st.DrawFn) -> Bounded:
    lower, value, upper = sorted(draw(st.lists(st.integers(0, ENERGY_UJ_MAX), min_size=3, max_size=3)))
    return Bounded(value, lower, upper)


def key(number: int) -> Key:
    return Key("use", "dinum", None, f"u-{number}", None, "m", "chat", "A", ())


claims = st.lists(st.tuples(st.integers(0, 9), bounded(), st.integers(0, 3_600_000_000)), min_size=1, max_size=8).map(
    lambda parts: [Claim(key(number), *part) for number, part in enumerate(parts)]
)


@given(claims, bounded())
def test_entries_sum_to_the_pool_in_energy_grams_and_manufacture(parts, host):
    sums = [entry[1] for entry in entries_of(Pool(parts, host, PUE, FRANCE, CONTRACT))]
    energies = [claim.gpu_energy for claim in parts]
    it = Bounded(*(sum(getattr(one, name) for one in [*energies, host]) for name in ("value", "lower", "upper")))
    facility = facility_energy(it, PUE)
    assert sum(one.gpu_energy_uj for one in sums) == sum(one.value for one in energies)
    assert sum(one.energy_uj for one in sums) == facility.value
    assert sum(one.location_ng for one in sums) == carbon_ng(facility, FRANCE.factor).value
    assert sum(one.market_ng for one in sums) == 0
    gpu_us = sum(claim.gpu_us for claim in parts)
    assert sum(one.embodied_ng for one in sums) == embodied_ng(gpu_us, manufacture(LIFETIME_YEARS))
    assert sum(one.requests for one in sums) == sum(claim.requests for claim in parts)


@given(claims, bounded())
def test_every_figure_is_inside_its_bounds(parts, host):
    for _key, one in entries_of(Pool(parts, host, PUE, FRANCE, CONTRACT)):
        assert one.energy_lower_uj <= one.energy_uj <= one.energy_upper_uj
        assert one.location_lower_ng <= one.location_ng <= one.location_upper_ng
        assert one.embodied_lower_ng <= one.embodied_ng <= one.embodied_upper_ng


@given(claims, bounded(), st.randoms())
def test_entries_do_not_depend_on_the_order_of_claims(parts, host, random):
    shuffled = list(parts)
    random.shuffle(shuffled)
    entries = [sorted(entries_of(Pool(order, host, PUE, FRANCE, None)), key=str) for order in (parts, shuffled)]
    assert entries[0] == entries[1]


def test_what_is_unknown_stays_unknown_and_takes_nothing_from_the_others():
    known = Claim(key(1), 1, Bounded(1_000_000, 900_000, 1_100_000), 60_000_000)
    unknown = Claim(key(2)._replace(tier="U"), 3, None, 0)
    first, second = entries_of(Pool([known, unknown], NOTHING, PUE, FRANCE, CONTRACT))
    assert first[1].energy_uj == 1_250_000
    assert second[1] == (3, *[None] * 11)


def test_without_a_factor_grams_are_unknown_and_energy_is_not():
    claim = Claim(key(1), 1, Bounded(1_000_000, 900_000, 1_100_000), 60_000_000)
    ((named, sums),) = entries_of(Pool([claim], NOTHING, PUE, None, None))
    assert (sums.energy_uj, sums.location_ng, sums.market_ng) == (1_250_000, None, None)
    assert named.factors == ()
    ((named, sums),) = entries_of(Pool([claim], NOTHING, PUE, FRANCE, CONTRACT))
    assert named.factors == (4, 5, 9)
    assert sums.market_ng == 0


def test_a_host_without_gpu_energy_is_still_somebodys():
    parts = [Claim(key(number), 0, NOTHING, 0) for number in range(2)]
    entries = entries_of(Pool(parts, Bounded(101, 101, 101), Bounded(1_000_000, 1_000_000, 1_000_000), None, None))
    assert [sums.energy_uj for _key, sums in entries] == [51, 50]
