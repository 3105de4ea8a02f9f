"""What a figure about generated images is computed from, and what it says."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from diffusion_lit.feature import FeatureExtractor

__all__ = ["FeatureSet", "Figure", "Metric", "Sets"]


@dataclass(frozen=True)
class FeatureSet:
    """Images as one extractor sees them."""

    features: Tensor
    """float32 [N, d]."""
    labels: Tensor | None = None
    """The images' classes, int64 [N]; None where they have none."""

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Sets:
    """What is compared, all by the same extractor."""

    generated: FeatureSet
    real: FeatureSet
    """Images that the model was not trained on, or whatever else the reference is."""
    training: FeatureSet | None = None
    """Images that it was trained on: only metrics that ask for them receive them."""


@dataclass(frozen=True)
class Figure:
    """A number, with its standard error where the method states one."""

    value: float
    error: float | None = None


class Metric(ABC):
    """A figure, or several, about generated images."""

    extractor: FeatureExtractor
    min_images: int = 2
    """How many images each set must have at least."""
    needs_training: bool = False
    """Whether it compares with the images that the model was trained on, too."""

    def check(self) -> None:
        """Check that the extractor has what this metric reads. Raises a ValueError with the remedy."""

    @abstractmethod
    def measure(self, sets: Sets) -> dict[str, Figure]:
        """The figures by name, such as `fid`."""
