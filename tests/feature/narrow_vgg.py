"""A VGG16 of 15 M weights for `RandomVGG`, the extractor that commands use by default: its own take over a second."""

from functools import cache
from typing import Any
from unittest.mock import patch

import torchvision
from torch import nn

from diffusion_lit.feature import random_vgg

__all__ = ["AS_PUBLISHED", "narrow_vgg16", "narrowed"]

AS_PUBLISHED = random_vgg.seeded_vgg16
WIDE = torchvision.models.vgg16


def narrowed(**options: Any) -> torchvision.models.VGG:
    """With 8 features between the images and the last two layers: 119 M weights fewer."""
    network = WIDE(**options)
    network.classifier[0], network.classifier[3] = nn.Linear(25088, 8), nn.Linear(8, 4096)
    return network


@cache
def narrow_vgg16(seed: int, num_features: int) -> Any:
    """As `random_vgg.seeded_vgg16`; drawn once, for nothing changes it."""
    with patch("torchvision.models.vgg16", narrowed):
        return AS_PUBLISHED(seed, num_features)
