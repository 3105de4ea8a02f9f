"""Features that no figure can be computed from."""

import logging

import torch
from torch import Tensor

__all__ = ["check_features", "collapsed"]

log = logging.getLogger(__name__)

NOISE = 1e-6
"""The spread, as a share of the size, that rounding alone gives to features of equal images."""


def check_features(features: Tensor, name: str) -> None:
    """Check that features of several images are numbers, and warn if they are all alike.

    Args:
        features: [N, d].
        name: whose they are, for the message, such as "inception features of the generated images".

    Raises:
        ValueError: if any is infinite or not a number.
    """
    broken = int((~features.isfinite().all(1)).sum())
    if broken:
        raise ValueError(
            f"{name}: those of {broken} of {len(features)} images are not finite: no figure can be computed from them. "
            "Pixels are bytes and cannot be the cause: the extractor's weights are damaged, or another network's"
        )
    if collapsed(features):
        log.warning("%s: all %d images have the same; figures from them mean nothing", name, len(features))


def collapsed(features: Tensor) -> bool:
    """Whether several images have features that are equal but for rounding."""
    if len(features) < 2:
        return False
    low, high = features.aminmax(dim=0)
    return bool((high - low).max() <= NOISE * torch.maximum(high.abs(), low.abs()).max())
