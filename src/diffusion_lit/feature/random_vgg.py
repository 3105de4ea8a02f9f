"""A VGG16 that never saw an image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.feature.base import FeatureExtractor, to_colour

MIN_RESOLUTION = 32  # VGG16 halves its input five times


class RandomVGG(FeatureExtractor):
    """64 features of a VGG16 with seeded random weights, for images unlike ImageNet's (Naeem et al. 2020, section 4,
    arXiv:2002.09797).

    Images under 32 pixels are enlarged to 32 (bilinear). Weights are Kaiming-normal, biases zero; the last layer gives
    64 numbers in place of 1,000 classes. Figures compare only where the weights' `seed` is the same.
    """

    name = "random_vgg"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        from torchvision.models import vgg16

        with torch.device("meta"):  # torchvision's own initialisation of 134 M weights would be thrown away
            network = vgg16(weights=None)
            network.classifier[-1] = nn.Linear(4096, 64)
        self.network = network.to_empty(device="cpu").eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = to_colour(images).float() / 127.5 - 1
        if x.shape[-1] < MIN_RESOLUTION:
            x = F.interpolate(x, size=(MIN_RESOLUTION, MIN_RESOLUTION), mode="bilinear")
        return self.network(x)
