"""The data-copying test."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.distance import nearest
from diffusion_lit.metrics.moments import moments

__all__ = ["CTScore", "rank_sum_score"]


def rank_sum_score(x: Tensor, y: Tensor) -> float:
    """The Mann-Whitney U statistic, the number of pairs with x > y (ties count half), in standard deviations from what
    equal distributions would give.

    Args:
        x, y: [m], [n].
    """
    m, n, y = len(x), len(y), y.sort().values
    below, up_to = (torch.searchsorted(y, x, side=side).sum() for side in ("left", "right"))
    expected = m * n / 2 - 0.5  # the half corrects for U's being a whole number
    return float((below + up_to) / 2 - expected) / (m * n * (m + n + 1) / 12) ** 0.5


@dataclass
class CTScore(Metric):
    """C_T (Meehan et al. 2020, section 3, arXiv:2004.05675): are generated images nearer to training images than
    held-out ones are?

    Below -3 the model copies, above 3 it underfits. The features are reduced to principal components of the training
    images, which k-means divides into cells. Within a cell, distances to the nearest training image are ranked; the
    mean of the cells' scores is weighted by their numbers of held-out images. The settings are those of dgm-eval.

    Args:
        extractor: maps images to features.
        num_cells: how many cells; a ValueError under 1.
        num_components: how many components; a ValueError under 1. Fewer features are left as they are.
        min_generated: cells with no more generated images than this do not count.
        seed: seed of k-means.
    """

    extractor: FeatureExtractor
    num_cells: int = 3
    num_components: int = 64
    min_generated: int = 20
    seed: int = 0
    better = 0.0
    needs_training = True

    def __post_init__(self) -> None:
        if self.num_cells < 1 or self.num_components < 1:
            raise ValueError(
                f"ct_score.num_cells and num_components must be at least 1 (published: 3 and 64), got {self.num_cells} "
                f"and {self.num_components}"
            )
        self.min_images = max(self.num_cells, self.min_generated + 1)
        self.fewer = "min_generated"

    def measure(self, sets: Sets) -> dict[str, Figure]:
        from sklearn.cluster import KMeans

        assert sets.training is not None
        images = [images.features for images in (sets.training, sets.real, sets.generated)]
        training, held_out, generated = principal_components(images, self.num_components)
        clusters = KMeans(self.num_cells, n_init=10, random_state=self.seed).fit(training.cpu().numpy())
        cells = [
            torch.from_numpy(clusters.predict(x.cpu().numpy())).to(x.device) for x in (training, held_out, generated)
        ]
        score, weight = 0.0, 0
        for cell in range(self.num_cells):
            t, p, q = (x[own == cell] for x, own in zip((training, held_out, generated), cells, strict=True))
            if len(p) > 0 and len(q) > self.min_generated:
                distances_q, distances_p = nearest(q, t)[0].squeeze(1), nearest(p, t)[0].squeeze(1)
                score += len(p) * rank_sum_score(distances_q, distances_p)
                weight += len(p)
        if weight == 0:
            raise ValueError(
                f"ct_score: none of {self.num_cells} cells has held-out images and more than {self.min_generated} of "
                f"the {len(generated)} generated ones; take more images, or set metrics.ct_score.num_cells lower"
            )
        return {"ct_score": Figure(score / weight)}


def principal_components(features: list[Tensor], num: int) -> list[Tensor]:
    """The first `num` principal components of the first set [N, d], and those of the others in the same basis."""
    if features[0].shape[1] <= num:
        return features
    mean, covariance = moments(features[0])
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -num:]
    return [(x - mean.to(x.dtype)) @ basis.to(x.dtype) for x in features]
