"""Weights that two programs can each make by themselves."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["filled"]


def filled(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draws of one generator by sorted name, of such a size that no path of a network fades or grows."""
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shapes[name].shape, generator=generator) for name in sorted(shapes)}
    return {name: 1 + 0.1 * w if w.ndim == 1 else w / w[0].numel() ** 0.5 for name, w in drawn.items()}
