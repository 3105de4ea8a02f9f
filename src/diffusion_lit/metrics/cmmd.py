"""CLIP maximum mean discrepancy."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.distance import squared_distances

__all__ = ["CMMD"]


@dataclass
class CMMD(Metric):
    """1000 MMD^2 of unit-length CLIP features with the kernel exp(-|x - y|^2 / (2 sigma^2)) (Jayasumana et al. 2024,
    eq. 5, arXiv:2401.09603).

    The estimate is the biased one, as in the paper's code: never negative, and 0 for equal sets.

    Args:
        extractor: maps images to features; published figures are CLIP's.
        sigma: the kernel's bandwidth; a ValueError unless positive.
        scale: what MMD^2 is multiplied by.
    """

    extractor: FeatureExtractor
    sigma: float = 10.0
    scale: float = 1000.0

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"cmmd.sigma must be positive (published: 10), got {self.sigma}")

    def measure(self, sets: Sets) -> dict[str, Figure]:
        x, y = (F.normalize(images.features, dim=1) for images in (sets.generated, sets.real))
        mmd = self.kernel_mean(x, x) + self.kernel_mean(y, y) - 2 * self.kernel_mean(x, y)
        return {"cmmd": Figure(self.scale * mmd)}

    def kernel_mean(self, x: Tensor, y: Tensor) -> float:
        """The kernel's mean over all pairs, less 1, which cancels in the MMD."""
        scale, total = -1 / (2 * self.sigma**2), 0.0
        for _, squares in squared_distances(x, y):
            total += float(squares.mul_(scale).expm1_().sum(dtype=torch.float64))
        return total / (len(x) * len(y))
