"""Feature likelihood divergence."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.mixture import ImageMixture

__all__ = ["FeatureLikelihoodDivergence"]


@dataclass
class FeatureLikelihoodDivergence(Metric):
    """FLD (Jiralerspong et al. 2023, arXiv:2302.04440): how unlikely held-out images are under a mixture of Gaussians
    around the generated ones, whose widths are fitted to the training images. Copies get narrow ones, and no credit.

    In hundredths of a nat per dimension, over what one half of the training images achieves around the other. The
    generalization gap, `fld_gap`, is that of training over held-out images: a little under 0 for new images, since
    widths are fitted to the training ones, and far under 0 for copies of these.

    Args:
        extractor: maps images to features; the paper's are DINOv2's.
        max_generated: how many generated images are used at most, 10,000 in the paper; a ValueError under 2.
        seed: seed of the choice and of the halves.
    """

    extractor: FeatureExtractor
    max_generated: int = 10_000
    seed: int = 0
    needs_training = True

    def __post_init__(self) -> None:
        if self.max_generated < 2:
            raise ValueError(
                f"feature_likelihood_divergence.max_generated must be at least 2 (published: 10000), got "
                f"{self.max_generated}"
            )
        self.min_images = 4  # of which each half has two

    def measure(self, sets: Sets) -> dict[str, Figure]:
        assert sets.training is not None
        rng, generated = np.random.RandomState(self.seed), sets.generated.features
        if len(generated) > self.max_generated:
            generated = generated[rng.choice(len(generated), self.max_generated, replace=False)]
        training, held_out, generated = standardized(sets.real.features, sets.training.features, generated)
        mixture = ImageMixture(generated).fit(training, rng)
        nll = mixture.nll(held_out)
        shuffled = training[rng.permutation(len(training))]
        half = min(len(generated), len(training) // 2)
        baseline = ImageMixture(shuffled[:half]).fit(shuffled[half:], rng).nll(held_out)
        gap = mixture.nll(training) - nll
        return {"fld": Figure(100 * (nll - baseline)), "fld_gap": Figure(100 * gap, better=0.0)}


def standardized(held_out: Tensor, training: Tensor, generated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Training, held-out and generated features, where those of held-out images have mean 0 and standard deviation 1.

    Features that are the same in all held-out images keep their scale.
    """
    mean, std = held_out.mean(0), held_out.std(0)
    std = torch.where(std > 0, std, 1)
    return (training - mean) / std, (held_out - mean) / std, (generated - mean) / std
