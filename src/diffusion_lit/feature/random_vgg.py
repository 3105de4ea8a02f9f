"""A VGG16 that never saw an image."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.feature.base import FeatureExtractor, to_colour

MIN_RESOLUTION = 32  # VGG16 halves its input five times


class RandomVGG(FeatureExtractor):
    """64 features of a VGG16 with seeded random weights, for images unlike ImageNet's (Naeem et al. 2020, section 4,
    arXiv:2002.09797).

    Sides under 32 pixels are enlarged to 32 (bilinear). Weights are Kaiming-normal, biases zero; the last layer gives
    64 numbers in place of 1,000 classes. Figures compare only where the weights' `seed` is the same.

    Args:
        seed: seed of the weights.
        first_three: of images of more channels, compare the first three, such as colour without alpha; false refuses
            them.
    """

    name = "random_vgg"
    num_features = 64
    whole: Tensor
    sees = f"its own size, sides under {MIN_RESOLUTION} pixels enlarged to that (bilinear), grey as colour, [-1, 1]"

    def __init__(self, seed: int = 0, first_three: bool = False) -> None:
        super().__init__()
        self.seed, self.first_three = seed, first_three
        if first_three:
            self.sees = f"the first three channels, {self.sees}"
        self.network = seeded_vgg16(seed, self.num_features)
        first = self.network.classifier[0]
        self.register_buffer("whole", first.weight.unflatten(1, (512, -1)).sum(2), persistent=False)

    def protocol(self) -> dict[str, str | int | None]:
        return {**super().protocol(), "seed": self.seed}

    def check(self, channels: int, height: int, width: int) -> None:
        super().check(3 if self.first_three and channels > 3 else channels, height, width)

    def features(self, images: Tensor) -> Tensor:
        x = to_colour(images[:, :3] if self.first_three else images).float() / 127.5 - 1
        size = [max(side, MIN_RESOLUTION) for side in x.shape[2:]]
        if size != list(x.shape[2:]):
            x = F.interpolate(x, size=size, mode="bilinear")
        x = self.network.features(x)
        if x.shape[2:] != (1, 1):
            return self.network.classifier(self.network.avgpool(x).flatten(1))
        # The one pixel that is left would be copied 7 x 7 times: the sum of its weights is read in their place.
        return self.network.classifier[1:](F.linear(x.flatten(1), self.whole))


def seeded_vgg16(seed: int, num_features: int) -> Any:
    """A VGG16 with `num_features` outputs, drawn from `seed` alone."""
    from torchvision.models import vgg16

    with torch.device("meta"):  # torchvision's own initialisation of 134 M weights would be thrown away
        network = vgg16(weights=None)
        network.classifier[-1] = nn.Linear(4096, num_features)
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    network.features.to(memory_format=torch.channels_last)  # a fifth faster on CPUs
    return network
