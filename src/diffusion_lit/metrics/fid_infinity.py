"""The Frechet distance that infinitely many generated images would have."""

from dataclasses import dataclass

import numpy as np

from diffusion_lit.metrics.base import Figure, Sets
from diffusion_lit.metrics.frechet_distance import FrechetDistance, root, rooted_distance
from diffusion_lit.metrics.moments import moments

__all__ = ["FIDInfinity"]


@dataclass
class FIDInfinity(FrechetDistance):
    """FID_inf (Chong & Forsyth 2020, section 4, arXiv:1911.07023): the intercept of a line through FIDs against 1 / N.

    Each N is the size of a random subset of the generated images: evenly spaced from min(5000, a tenth of them) to all.
    The bias that the number of real images causes stays.

    Args, besides those of `FrechetDistance`:
        num_points: how many FIDs; a ValueError under 2.
        seed: seed of the subsets.
    """

    name: str = "fid_infinity"
    num_points: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_points < 2:
            raise ValueError(f"{self.name}.num_points must be at least 2, for a line; got {self.num_points}")
        self.min_images = 2 * self.num_points  # so that the subsets' sizes differ
        self.fewer = "num_points"

    def smallest(self, num: int) -> int:
        """The size of the smallest subset of `num` images."""
        return min(5000, max(num // 10, 2))

    def caveats(self, sets: Sets) -> list[str]:
        num, dim = sets.generated.features.shape
        if self.smallest(num) > dim:
            return super().caveats(sets)
        return [
            *super().caveats(sets),
            f"{self.name}: its line starts at {self.smallest(num)} images, no more than they have features, {dim}, and "
            f"there the bias does not fall as 1 / N yet: take over {10 * dim} images",
        ]

    def measure(self, sets: Sets) -> dict[str, Figure]:
        real, features = self.real_moments(sets), sets.generated.features
        real_root, num, rng = root(real.covariance), len(features), np.random.default_rng(self.seed)
        sizes = np.linspace(self.smallest(num), num, self.num_points).astype(int)
        distances = []
        for size in sizes:
            mean, covariance = moments(features[rng.choice(num, size, replace=False)])
            distances.append(rooted_distance(mean, root(covariance), real.mean, real_root))
        _, intercept = np.polyfit(1 / sizes, distances, 1)
        return {self.name: Figure(float(intercept))}
