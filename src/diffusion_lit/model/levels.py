"""The levels of a network that halves the image again and again."""

from collections.abc import Sequence

from diffusion_lit.resolution import height_and_width

__all__ = ["level_sizes"]


def level_sizes(resolution: int | Sequence[int], num_levels: int) -> list[int]:
    """The shorter side of the feature maps on each level, by which a network's settings name it.

    Raises:
        ValueError: if a side cannot be halved so often; the message says which sides can.
    """
    sides = height_and_width(resolution)
    factor = 2 ** (num_levels - 1)
    for side in sides:
        if side % factor:
            below = max(side // factor * factor, factor)
            raise ValueError(
                f"the network halves the image {num_levels - 1} times, so a side of it must be a multiple of {factor}, "
                f"and {side} is not; {below} and {below + factor} are. Set data.resolution, or shorten "
                "model.channel_multipliers"
            )
    return [min(sides) // 2**level for level in range(num_levels)]
