"""Classes of images, by what an extractor makes of them."""

import torch
from torch import Tensor

from diffusion_lit.feature import Classifier

__all__ = ["logits"]

ROWS = 4096  # classified at a time


def logits(classifier: Classifier, features: Tensor) -> Tensor:
    """Those of features [N, d], float64 [N, number of classes], on the features' device."""
    device = next(classifier.parameters()).device
    with torch.no_grad():
        return torch.cat(
            [classifier.logits(rows.to(device)).to(features.device) for rows in torch.split(features, ROWS)]
        ).double()
