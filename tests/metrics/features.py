"""Features that are drawn, and extractors that need no images."""

import numpy as np
import torch
from torch import Tensor

from diffusion_lit.feature import Classifier, FeatureExtractor
from diffusion_lit.metrics import FeatureSet, Sets


class Given(FeatureExtractor):
    """An extractor for a metric whose features are at hand."""

    name = "given"

    def features(self, images: Tensor) -> Tensor:
        return images


class Sorter(Classifier):
    """Each feature is the logit of a class."""

    name = "sorter"

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def features(self, images: Tensor) -> Tensor:
        return images

    def logits(self, features: Tensor) -> Tensor:
        return self.scale * features


def clustered(seed: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training [400, dim], held-out [300, dim] and generated features [350, dim], float64, in three clusters; 100 of
    the generated are nearly copies. README.md says that published code was given these."""
    rng = np.random.RandomState(seed)
    centres, mixing = 4 * rng.standard_normal((3, dim)), rng.standard_normal((dim, dim)) / dim**0.5

    def draw(num: int, shift: float) -> np.ndarray:
        return centres[rng.randint(3, size=num)] + rng.standard_normal((num, dim)) @ mixing + shift

    training, held_out, generated = draw(400, 0.0), draw(300, 0.0), draw(350, 0.2)
    generated[:100] = training[:100] + 0.01 * rng.standard_normal((100, dim))
    return torch.from_numpy(training), torch.from_numpy(held_out), torch.from_numpy(generated)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compared(generated: Tensor, real: Tensor, training: Tensor | None = None) -> Sets:
    return Sets(FeatureSet(generated), FeatureSet(real), None if training is None else FeatureSet(training))


def labelled(generated: tuple[Tensor, list[int]], real: tuple[Tensor, list[int]]) -> Sets:
    return Sets(*(FeatureSet(features, torch.tensor(labels)) for features, labels in (generated, real)))
