"""The widths of a network's levels as multiples of the first."""

from collections.abc import Sequence

__all__ = ["multipliers_of"]


def multipliers_of(widths: Sequence[int]) -> list[float]:
    """2 for twice the first width, 1.5 for half as much again: whole numbers where they are whole, as people write."""
    ratios = [width / widths[0] for width in widths]
    return [int(ratio) if ratio.is_integer() else ratio for ratio in ratios]
