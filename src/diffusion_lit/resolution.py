"""Height and width, as a setting says them: 64, or [48, 64]."""

from collections.abc import Sequence

__all__ = ["height_and_width", "shortest"]


def height_and_width(resolution: int | Sequence[int]) -> tuple[int, int]:
    """The two sides of an image; one number is both.

    Raises:
        ValueError: if it is not one or two whole numbers of at least 1.
    """
    sides = list(resolution) if isinstance(resolution, Sequence) else [resolution, resolution]
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(
            f"a resolution is one number of pixels, or [height, width], of at least 1, got {resolution}: give "
            "resolution=64 or resolution=[48,64]"
        )
    return sides[0], sides[1]


def shortest(height: int, width: int) -> int | list[int]:
    """How a setting says it: one number where both sides are alike."""
    return height if height == width else [height, width]
