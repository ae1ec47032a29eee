"""The simulation of spreading over machines."""

import random

import pytest

from tests.bench.spreading import ADMINISTRATIONS, NODES, busiest_by_hand, busiest_by_slot, loads, table


@pytest.mark.parametrize("administrations", ADMINISTRATIONS)
def test_no_machine_has_less_than_its_share_or_than_the_largest(administrations: int) -> None:
    parts = loads(administrations)
    assert sum(parts) == pytest.approx(1)
    for nodes in NODES:
        least = max(1 / nodes, parts[0])
        by_hand, by_slot = busiest_by_hand(parts, nodes), busiest_by_slot(parts, nodes, random.Random(7))
        assert least <= by_hand + 1e-9 <= by_slot + 2e-9 <= 1 + 3e-9
    assert busiest_by_slot(parts, 1, random.Random(7)) == pytest.approx(1)


def test_the_page_has_the_simulations_own_figures(request: pytest.FixtureRequest) -> None:
    page = (request.config.rootpath / "docs" / "scale.md").read_text()
    shown = [line for line in table().splitlines() if line.startswith(("| 500 ", "| 5,000 "))]
    assert len(shown) == 8
    assert all(line in page for line in shown)
