"""Exact division: parts that sum to the whole, and quotients rounded once."""

from collections.abc import Sequence


def shared(total: int, weights: Sequence[int], keys: Sequence[bytes] | Sequence[int] | Sequence[str]) -> list[int]:
    """Parts of a total in proportion to weights, of which one is above 0, by largest remainder.

    Each gets its proportion rounded down; what is left goes, one by one, to those that lost most by rounding, and
    among equals to the lower key. So the parts sum to the total (Hamilton's method of apportionment).
    """
    whole = sum(weights)
    if total == whole:
        return list(weights)
    divided = [divmod(total * weight, whole) for weight in weights]
    parts = [part for part, _lost in divided]
    left = total - sum(parts)
    if left:
        for at in sorted(range(len(parts)), key=lambda at: (-divided[at][1], keys[at]))[:left]:
            parts[at] += 1
    return parts


def rounded(dividend: int, divisor: int) -> int:
    """A quotient rounded half up."""
    return (2 * dividend + divisor) // (2 * divisor)


def rounded_up(dividend: int, divisor: int) -> int:
    """The least integer that isn't below a quotient."""
    return -(-dividend // divisor)
