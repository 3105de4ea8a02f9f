"""How near generated images come to training images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.distance import nearest

__all__ = ["NearestNeighbour", "closest_pairs"]


@dataclass
class NearestNeighbour(Metric):
    """Distances from generated images to the nearest training image, against those of held-out images.

    `copied` is the share of generated images as near to a training image as the nearest `quantile` of held-out images
    are: a model that has learned the distribution has about `quantile`, one that copies up to 1. `closeness` is the
    median distance of held-out images over that of generated ones: 1, and more where images are copied, up to 10^6.
    Both are low for images unlike any, so that they mean little without a figure of quality.

    Args:
        extractor: maps images to features.
        quantile: which share of held-out images counts as near; a ValueError outside (0, 1).
    """

    extractor: FeatureExtractor
    quantile: float = 0.05
    needs_training = True

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"nearest_neighbour.quantile must lie in (0, 1), such as 0.05; got {self.quantile}")

    def measure(self, sets: Sets) -> dict[str, Figure]:
        assert sets.training is not None
        training = sets.training.features
        generated, held_out = (nearest(x.features, training)[0].double() for x in (sets.generated, sets.real))
        copied = (generated <= held_out.quantile(self.quantile)).double().mean()
        usual, own = held_out.median(), generated.median()
        closeness = 1.0 if own == usual else float(usual / own.clamp(min=usual / 1e6))  # both may be 0
        return {
            "copied": Figure(float(copied), better=self.quantile),
            "closeness": Figure(closeness, better=1.0),
        }


def closest_pairs(generated: Tensor, training: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` generated images that come nearest to a training image, nearest first.

    Args:
        generated, training: features [N, d] and [M, d].
        num: how many pairs, at most N.

    Returns:
        Indices (generated, training) int64 [num, 2], and distances [num].
    """
    distances, indices = (x.squeeze(1) for x in nearest(generated, training))
    order = distances.argsort(stable=True)[:num]
    return torch.stack([order, indices[order]], dim=1), distances[order]
