"""How far a platform spreads over machines when it is cut by administration: a simulation, no measurement.

    python -m tests.bench.spreading

Administrations are as unequal as Zipf's law has it: the second asks half as much as the first, the third a third. Their
counters are where the slots of a cluster put them (as `metering/quotas/nodes.py` finds them there), for many sets of
names; their ledgers are where somebody puts them who places the largest first.
"""

import random
import statistics
from binascii import crc_hqx
from collections.abc import Sequence

SLOTS = 16_384
NODES = (1, 2, 3, 6, 12)
ADMINISTRATIONS = (50, 500, 5_000)
DRAWS = 200


def loads(administrations: int) -> list[float]:
    """The part of the whole that each asks for, the largest first."""
    weights = [1 / rank for rank in range(1, administrations + 1)]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def busiest_by_slot(parts: Sequence[float], nodes: int, draw: random.Random) -> float:
    """The part that the busiest node of a cluster has, each node having as many slots."""
    held = [0.0] * nodes
    for part in parts:
        slot = crc_hqx(draw.randbytes(8), 0) % SLOTS
        held[slot * nodes // SLOTS] += part
    return max(held)


def busiest_by_hand(parts: Sequence[float], nodes: int) -> float:
    """The part that the busiest shard has, each administration being put where the least is."""
    held = [0.0] * nodes
    for part in parts:
        held[held.index(min(held))] += part
    return max(held)


def table() -> str:
    """How much more than one machine so many carry, in Markdown."""
    lines = ["| administrations | machines | counters, by slot (worst of 20) | ledgers, by hand |", "|---|---|---|---|"]
    draw = random.Random(1)
    for administrations in ADMINISTRATIONS:
        parts = loads(administrations)
        for nodes in NODES[1:]:
            found = sorted(1 / busiest_by_slot(parts, nodes, draw) for _ in range(DRAWS))
            usual, worst = statistics.median(found), found[DRAWS // 20]
            by_hand = 1 / busiest_by_hand(parts, nodes)
            lines.append(f"| {administrations:,} | {nodes} | × {usual:.1f} ({worst:.1f}) | × {by_hand:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
