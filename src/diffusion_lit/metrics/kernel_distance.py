"""The squared maximum mean discrepancy between two sets of features under a polynomial kernel."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets

__all__ = ["KernelDistance", "unbiased_mmd"]


def unbiased_mmd(x: Tensor, y: Tensor, degree: int = 3, coef: float = 1.0) -> Tensor:
    """The unbiased estimate of MMD^2 with the kernel (x y / d + coef)^degree (Binkowski et al. 2018, eq. 4).

    Args:
        x, y: [m, d] each, m >= 2.
        degree, coef: the kernel's.
    """
    num, dim = x.shape
    offset = x.new_tensor(coef)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(offset, a, b.T, alpha=1 / dim).pow_(degree)

    within = x.new_zeros(())
    for z in (x, y):
        own = kernel(z, z)
        within += own.sum() - own.trace()
    return within / (num * (num - 1)) - 2 * kernel(x, y).mean()


@dataclass
class KernelDistance(Metric):
    """KID (Binkowski et al. 2018, arXiv:1801.01401), of whatever features: the mean over random subsets.

    The figure's spread is the standard deviation over subsets, as torch-fidelity prints it. Its standard error is
    spread / sqrt(k), where k subsets are as good as independent: as many as were drawn, but no more than the images of
    the smaller set can fill without sharing any. Where that is not even two, no error is stated.

    Args:
        extractor: maps images to features.
        name: the figure's name.
        num_subsets: how many subsets; a ValueError under 2.
        subset_size: images in each, of either set; a ValueError under 2.
        degree, coef: the kernel's.
        seed: seed of the subsets; the default is torch-fidelity's, whose subsets these are.
    """

    extractor: FeatureExtractor
    name: str = "kid"
    num_subsets: int = 100
    subset_size: int = 1000
    degree: int = 3
    coef: float = 1.0
    seed: int = 2020

    def __post_init__(self) -> None:
        if self.num_subsets < 2 or self.subset_size < 2 or self.degree < 1:
            raise ValueError(
                f"{self.name} needs num_subsets >= 2, subset_size >= 2 and degree >= 1, got {self.num_subsets}, "
                f"{self.subset_size} and {self.degree}; published figures have 100, 1000 and 3"
            )
        self.min_images = self.subset_size
        self.fewer = "subset_size"

    def measure(self, sets: Sets) -> dict[str, Figure]:
        generated, real = sets.generated.features, sets.real.features
        smaller = min(len(generated), len(real))
        if smaller < self.subset_size:
            raise ValueError(
                f"{self.name}.subset_size={self.subset_size} is more than the {smaller} images of the smaller set: "
                f"take more images, or set metrics.{self.name}.subset_size to a tenth of them"
            )
        rng, values = np.random.RandomState(self.seed), []
        for _ in range(self.num_subsets):
            x = generated[rng.choice(len(generated), self.subset_size, replace=False)].double()
            y = real[rng.choice(len(real), self.subset_size, replace=False)].double()
            values.append(float(unbiased_mmd(x, y, self.degree, self.coef)))
        spread = float(np.std(values))
        independent = min(self.num_subsets, smaller / self.subset_size)
        error = spread / independent**0.5 if independent >= 2 else None
        return {self.name: Figure(float(np.mean(values)), error, spread)}
