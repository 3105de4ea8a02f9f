"""Density and coverage."""

from dataclasses import dataclass

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.distance import count_spheres, nearest, radii

__all__ = ["DensityCoverage"]


@dataclass
class DensityCoverage(Metric):
    """Precision and recall that outliers disturb less (Naeem et al. 2020, eq. 3 and 4, arXiv:2002.09797).

    Around each real image is a sphere that reaches to its k-th neighbour. `density` is the number of spheres that a
    generated image lies in, over k: 1 for equal distributions, possibly more. `coverage` is the share of spheres with a
    generated image in them: for equal distributions and many images 1 - 2^-k.

    Args:
        extractor: maps images to features.
        k: which neighbour; a ValueError under 1.
    """

    extractor: FeatureExtractor
    k: int = 5
    better = "higher"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"density_coverage.k must be at least 1 (published: 5), got {self.k}")
        self.min_images = self.k + 1
        self.fewer = "k"

    def measure(self, sets: Sets) -> dict[str, Figure]:
        generated, real = sets.generated.features, sets.real.features
        radius = radii(real, self.k)
        counts = count_spheres(generated, real, radius)
        covered = nearest(real, generated)[0].squeeze(1) <= radius
        return {
            "density": Figure(float(counts.double().mean() / self.k)),
            "coverage": Figure(float(covered.double().mean())),
        }
