"""What a figure about generated images is computed from, and what it says."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from diffusion_lit.feature import FeatureExtractor

__all__ = ["Better", "FeatureSet", "Figure", "Metric", "Sets"]

Better = Literal["lower", "higher"] | float
"""Which values of a figure are better; a number is the value that new real images have, and best is near it."""


@dataclass(frozen=True)
class FeatureSet:
    """Images as one extractor sees them."""

    features: Tensor
    """float32 [N, d]."""
    labels: Tensor | None = None
    """The images' classes, int64 [N]; None where they have none."""
    asked: bool = False
    """Whether these are the classes that a model was asked for, and not what somebody has found in its images."""

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, images: Tensor) -> "FeatureSet":
        """Some of the images, by their numbers or by a mask."""
        labels = None if self.labels is None else self.labels[images]
        return replace(self, features=self.features[images], labels=labels)


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
    """A number, with what the method states of its uncertainty."""

    value: float
    error: float | None = None
    """The standard error of `value`."""
    spread: float | None = None
    """The standard deviation over subsets or splits: what papers write after KID's and the Inception score's ±."""
    better: Better | None = None
    """Which values are better, where not those that the metric states for its figures."""
    count: int | None = None
    """How many generated images it is of, where not of all."""


class Metric(ABC):
    """A figure, or several, about generated images."""

    extractor: FeatureExtractor
    better: Better = "lower"
    """Which values are better."""
    min_images: int = 2
    """How many images each set must have at least."""
    fewer: str = ""
    """The setting that, lowered, lets it take fewer; empty where there is none."""
    needs_real: bool = True
    """Whether it reads `Sets.real`; where it does not, that set may be empty."""
    of_each_class: bool = False
    """Whether each class that the real images have is compared by itself."""
    needs_training: bool = False
    """Whether it compares with the images that the model was trained on, too."""

    @property
    def reads(self) -> list[str]:
        """Which of the `Sets` it is computed from."""
        asked = {"generated": True, "real": self.needs_real, "training": self.needs_training}
        return [name for name, is_read in asked.items() if is_read]

    def check(self) -> None:  # noqa: B027 - most take any extractor
        """Check that the extractor, which has seen the images' shape, has what this metric reads.

        Raises a ValueError with the remedy.
        """

    def facts(self) -> dict[str, str]:
        """What decides its figures and its settings do not say, for the protocol."""
        return {}

    def check_labels(self, sets: Sets) -> None:  # noqa: B027 - most read none
        """Check what the images' labels decide, before there are features. Raises a ValueError with the remedy.

        Args:
            sets: whose features are empty.
        """

    def caveats(self, sets: Sets) -> list[str]:
        """What a reader of the figures should know about these sets, a sentence each."""
        return []

    @abstractmethod
    def measure(self, sets: Sets) -> dict[str, Figure]:
        """The figures by name, such as `fid`."""
