"""The Vendi score."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics.base import Figure, Metric, Sets

__all__ = ["Vendi", "vendi_score"]


def vendi_score(features: Tensor) -> float:
    """exp of the entropy of the eigenvalues of K / N, K the cosines between the images' features [N, d]."""
    x = F.normalize(features.double(), dim=1)
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T  # both have the same eigenvalues, but for zeros
    p = torch.linalg.eigvalsh(gram / len(x)).clamp(min=0)
    return float(torch.special.entr(p).sum().exp())


@dataclass
class Vendi(Metric):
    """The effective number of different images among the generated ones, from 1 to N (Friedman & Dieng 2023,
    definition 3.1, arXiv:2210.02410), with cosine similarity.

    It says nothing of their quality, and is at most the number of features.

    Args:
        extractor: maps images to features.
    """

    extractor: FeatureExtractor
    better = "higher"
    needs_real = False

    def measure(self, sets: Sets) -> dict[str, Figure]:
        return {"vendi": Figure(vendi_score(sets.generated.features))}
