"""The pixels themselves."""

import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature.base import FeatureExtractor


class Pixels(FeatureExtractor):
    """Pixel values in [0, 1], quick, and blind to what is depicted.

    Images whose height is over `max_resolution` are averaged down to it, so that the covariance stays small.
    """

    name = "pixels"

    def __init__(self, max_resolution: int = 16) -> None:
        super().__init__()
        self.max_resolution = max_resolution

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        if x.shape[-1] > self.max_resolution:
            x = F.adaptive_avg_pool2d(x, self.max_resolution)
        return x.flatten(1)
