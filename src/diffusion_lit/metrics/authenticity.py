"""Authenticity: how many generated images are not copies."""

from dataclasses import dataclass

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.distance import nearest

__all__ = ["Authenticity"]


@dataclass
class Authenticity(Metric):
    """AuthPct, in per cent (Alaa et al. 2022, arXiv:2102.08921): how many generated images are farther from the
    training image nearest to them than that one is from its own nearest neighbour. About 50 for new real images, 0 for
    copies, and up to 100 for images unlike any.

    Args:
        extractor: maps images to features; Stein et al. 2023 (arXiv:2306.04675) use DINOv2's.
    """

    extractor: FeatureExtractor
    better = 50.0
    needs_real = False
    needs_training = True

    def measure(self, sets: Sets) -> dict[str, Figure]:
        assert sets.training is not None
        training = sets.training.features
        distance, index = (x.squeeze(1) for x in nearest(sets.generated.features, training))
        between = nearest(training, training, exclude_self=True)[0].squeeze(1)
        authentic = distance > between[index]
        return {"authenticity": Figure(100 * float(authentic.double().mean()))}
