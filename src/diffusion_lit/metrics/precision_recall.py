"""Improved precision and recall."""

from dataclasses import dataclass

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.distance import count_spheres, radii

__all__ = ["PrecisionRecall"]


@dataclass
class PrecisionRecall(Metric):
    """How many generated images look real, and how many real ones could be generated (Kynkaanniemi et al. 2019, eq. 2,
    arXiv:1904.06991).

    A set's manifold is the union of spheres around its images, each as large as the distance to its k-th neighbour.
    `precision` is the share of generated images in the real manifold, `recall` that of real ones in the generated.

    Args:
        extractor: maps images to features; the paper's are a VGG16's.
        k: which neighbour; a ValueError under 1.
    """

    extractor: FeatureExtractor
    k: int = 3
    better = "higher"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"precision_recall.k must be at least 1 (published: 3), got {self.k}")
        self.min_images = self.k + 1
        self.fewer = "k"

    def measure(self, sets: Sets) -> dict[str, Figure]:
        generated, real = sets.generated.features, sets.real.features
        precise = count_spheres(generated, real, radii(real, self.k)) > 0
        recalled = count_spheres(real, generated, radii(generated, self.k)) > 0
        return {
            "precision": Figure(float(precise.double().mean())),
            "recall": Figure(float(recalled.double().mean())),
        }
