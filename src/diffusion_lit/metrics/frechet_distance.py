"""The Frechet distance between Gaussians with the moments of two sets of features."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.files import checksum
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.moments import Moments, moments, read_moments

__all__ = ["FrechetDistance", "frechet_distance"]


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), from float64 means [d] and covariances [d, d].

    With A = R R^T and B = S S^T, tr (A B)^(1/2) is the sum of the singular values of R^T S. Unlike the square root of
    the product A B, it is as exact as float64 where A or B is singular.

    Raises:
        ValueError: if the moments are of different numbers of features.
    """
    check_same_dimension(len(mean_a), len(mean_b))
    return rooted_distance(mean_a, root(cov_a), mean_b, root(cov_b))


def rooted_distance(mean_a: Tensor, root_a: Tensor, mean_b: Tensor, root_b: Tensor) -> float:
    """The same from the covariances' roots."""
    cross = torch.linalg.svdvals(root_a.T @ root_b).sum()
    return float((mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * cross)


def root(covariance: Tensor) -> Tensor:
    """R [d, rank] with R R^T = covariance [d, d]; eigenvalues that rounding alone accounts for are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()


def check_same_dimension(images: int, reference: int) -> None:
    if images != reference:
        raise ValueError(
            f"the images have {images} features and the reference has {reference}: both must come from the same "
            "feature extractor, so choose the one that the reference was made with (feature=inception for most)"
        )


@dataclass
class FrechetDistance(Metric):
    """FID (Heusel et al. 2017, eq. 6, arXiv:1706.08500), of whatever features; of DINOv2's it is Stein et al.'s FD
    (2023, arXiv:2306.04675).

    Published figures use 50,000 generated images against the training set; fewer give larger figures.

    Args:
        extractor: maps images to features.
        name: the figure's name.
        reference: an .npz file of published statistics, `mu` and `sigma`, to compare with in place of `Sets.real`.

    Raises:
        ValueError: if `reference` is not such a file.
    """

    extractor: FeatureExtractor
    name: str = "fid"
    reference: str | None = None

    def __post_init__(self) -> None:
        self.published = None if self.reference is None else read_moments(self.reference)
        self.needs_real = self.published is None
        self.sha256 = None if self.reference is None else checksum(Path(self.reference))

    def check(self) -> None:
        if self.published is not None and self.extractor.num_features is not None:
            check_same_dimension(self.extractor.num_features, len(self.published.mean))

    def facts(self) -> dict[str, str]:
        """The reference's checksum: it may lie in another place."""
        return {} if self.sha256 is None else {"reference_sha256": self.sha256}

    def real_moments(self, sets: Sets) -> Moments:
        """Those of the published reference, or else of the real images; a ValueError if they do not fit."""
        if self.published is None:
            return moments(sets.real.features)
        device = sets.generated.features.device
        published = Moments(*(x.to(device) for x in self.published))
        check_same_dimension(sets.generated.features.shape[1], len(published.mean))
        return published

    def caveats(self, sets: Sets) -> list[str]:
        compared = {"generated": sets.generated} | ({"real": sets.real} if self.needs_real else {})
        return [
            f"{self.name}: the covariance of {len(images)} {kind} images is singular, since they have "
            f"{images.features.shape[1]} features: compare it only with figures of as many images"
            for kind, images in compared.items()
            if len(images) <= images.features.shape[1]
        ]

    def measure(self, sets: Sets) -> dict[str, Figure]:
        distance = frechet_distance(*moments(sets.generated.features), *self.real_moments(sets))
        return {self.name: Figure(distance)}
