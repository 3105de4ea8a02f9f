"""What images are compared by."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class FeatureExtractor(nn.Module, ABC):
    """Maps images uint8 [N, C, H, W], C = 1 or 3, to features [N, d], the same in every run."""

    name: str
    """Goes into the metric's name: figures from different extractors cannot be compared."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...


class Classifier(FeatureExtractor):
    """An extractor whose features are read by a last linear layer, which tells classes apart."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """[N, d] -> [N, number of classes], from the features that `forward` gives."""


def to_colour(images: Tensor) -> Tensor:
    """Three channels, grey repeated."""
    return images.expand(-1, 3, -1, -1)
