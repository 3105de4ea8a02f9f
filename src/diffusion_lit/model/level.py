"""What numbers a network can be built with: its counts, how often it can halve an image, how wide its levels are."""

from collections.abc import Sequence

from diffusion_lit.resolution import multiples_near, shortest

__all__ = ["check_counts", "check_halvings", "widths_of"]


def check_counts(num_classes: int | None, **counts: int | None) -> None:
    """Raise a ValueError unless each is at least 1, or None."""
    hints = {"num_classes": "; null is an unconditional model", "image_channels": "; auto takes the data's"}
    for name, count in {"num_classes": num_classes, **counts}.items():
        if count is not None and count < 1:
            raise ValueError(f"model.{name} must be at least 1, got {count}{hints.get(name, '')}")


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


def widths_of(channels: int, multipliers: Sequence[float], num_groups: int = 1) -> list[int]:
    """How many channels each level has; a ValueError unless all are whole multiples of a GroupNorm's groups."""
    if channels % num_groups:
        raise ValueError(f"model.channels={channels} must be a multiple of model.num_groups={num_groups}")
    products = [channels * multiplier for multiplier in multipliers]
    widths = [round(w) if abs(w - round(w)) < 1e-6 else w for w in products]  # 7 * (29 / 7) is not 29
    rule = "at least 1" if num_groups == 1 else f"a multiple of model.num_groups={num_groups}, and at least once that"
    if not widths or any(width < 1 or width % num_groups for width in widths):
        raise ValueError(
            f"model.channel_multipliers={list(multipliers)} of model.channels={channels} give levels of {widths} "
            f"channels: each must be {rule}"
        )
    return [int(width) for width in widths]
