"""The Inception score."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diffusion_lit.feature import Classifier, FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets
from diffusion_lit.metrics.classification import logits

__all__ = ["InceptionScore", "inception_score"]


def inception_score(logits: Tensor) -> float:
    """exp E KL(p(y | x) || p(y)), from logits [N, classes] (Salimans et al. 2016, section 4, arXiv:1606.03498)."""
    log_p = logits.log_softmax(1)
    log_marginal = log_p.logsumexp(0) - np.log(len(log_p))
    return float((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())


@dataclass
class InceptionScore(Metric):
    """The mean of the Inception scores of parts of the generated images, as torch-fidelity computes it.

    The figure's spread is the standard deviation over the parts, which papers state after their ±. Of a single part no
    error is stated.

    Args:
        extractor: a Classifier; published figures are Inception's.
        splits: how many parts; a ValueError under 1. Parts of under 5000 images give smaller figures.
        seed: seed of the order in which the images are dealt out; the default is torch-fidelity's.
    """

    extractor: FeatureExtractor
    splits: int = 10
    seed: int = 2020
    better = "higher"
    needs_real = False

    def __post_init__(self) -> None:
        if self.splits < 1:
            raise ValueError(f"inception_score.splits must be at least 1 (published: 10), got {self.splits}")
        self.min_images, self.fewer = self.splits, "splits"

    def check(self) -> None:
        self.classifier()

    def classifier(self) -> Classifier:
        if not isinstance(self.extractor, Classifier):
            raise ValueError(
                f"inception_score reads probabilities of classes, and {type(self.extractor).__name__} gives none: use "
                "feature=inception, or leave inception_score out of metrics"
            )
        return self.extractor

    def measure(self, sets: Sets) -> dict[str, Figure]:
        scores = logits(self.classifier(), sets.generated.features)
        num = len(scores)
        scores = scores[torch.from_numpy(np.random.RandomState(self.seed).permutation(num)).to(scores.device)]
        bounds = [i * num // self.splits for i in range(self.splits + 1)]
        parts = [inception_score(scores[a:b]) for a, b in pairwise(bounds)]
        spread = float(np.std(parts))
        error = spread / self.splits**0.5 if self.splits > 1 else None
        return {"inception_score": Figure(float(np.mean(parts)), error, spread)}
