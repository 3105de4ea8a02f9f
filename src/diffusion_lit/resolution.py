"""Height and width, as a setting says them: 64, or [48, 64]."""

from collections.abc import Sequence
from typing import Any

__all__ = ["height_and_width", "multiples_near", "shortest"]


def height_and_width(resolution: int | Sequence[int], key: str = "resolution") -> tuple[int, int]:
    """The two sides of an image; one number is both.

    Args:
        resolution: as it was set.
        key: the setting, for the message.

    Raises:
        ValueError: if it is not one or two whole numbers of at least 1.
    """
    one = isinstance(resolution, str) or not isinstance(resolution, Sequence)
    sides: list[Any] = [resolution, resolution] if one else list(resolution)  # type: ignore[arg-type]
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(
            f"{key} must be a whole number of pixels, or [height, width], of at least 1, got {resolution}: give "
            f"{key}=64 or {key}=[48,64]"
        )
    return sides[0], sides[1]


def shortest(height: int, width: int) -> int | list[int]:
    """How a setting says it: one number where both sides are alike."""
    return height if height == width else [height, width]


def multiples_near(resolution: int | Sequence[int], factor: int) -> tuple[int | list[int], int | list[int]]:
    """The next smaller and larger images whose sides are multiples of `factor`; a side that is one is kept."""
    sides = height_and_width(resolution)
    below = [max(side // factor, 1) * factor for side in sides]
    above = [side if side % factor == 0 else low + factor for side, low in zip(sides, below, strict=True)]
    return shortest(*below), shortest(*above)
