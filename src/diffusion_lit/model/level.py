"""The levels of a U-Net: how often it can halve an image, and how wide it is at each size."""

from collections.abc import Sequence

from diffusion_lit.resolution import multiples_near, shortest

__all__ = ["check_halvings", "widths_of"]


def check_halvings(sides: tuple[int, int], halvings: int, fold: int = 1) -> None:
    """Raise a ValueError unless both sides of the image can be folded, and then halved, so often."""
    if fold < 1:
        raise ValueError(f"model.fold must be at least 1, which leaves images as they are, got {fold}")
    factor = fold * 2**halvings
    if any(side % factor for side in sides):
        resolution = shortest(*sides)
        below, above = multiples_near(resolution, factor)
        folds, shorter = ("", "") if fold == 1 else (f"folds the image by {fold} and ", "lower model.fold, ")
        raise ValueError(
            f"the network {folds}halves {'it' if folds else 'the image'} {halvings} times, so the resolution must be a "
            f"multiple of {factor}, and {resolution} is not; {below} and {above} are. Set data.resolution, {shorter}or "
            "shorten model.channel_multipliers"
        )


def widths_of(channels: int, multipliers: Sequence[float], num_groups: int) -> list[int]:
    """How many channels each level has; a ValueError unless all are whole multiples of a GroupNorm's groups."""
    if channels % num_groups:
        raise ValueError(f"model.channels={channels} must be a multiple of model.num_groups={num_groups}")
    products = [channels * multiplier for multiplier in multipliers]
    widths = [
        round(width) if abs(width - round(width)) < 1e-6 else width for width in products
    ]  # 7 * (29 / 7) is not 29
    if not widths or any(width < 1 or width % num_groups for width in widths):
        raise ValueError(
            f"model.channel_multipliers={list(multipliers)} of model.channels={channels} give levels of {widths} "
            f"channels: each must be a multiple of model.num_groups={num_groups}, and at least once that"
        )
    return [int(width) for width in widths]
