"""The pixels themselves."""

import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature.base import FeatureExtractor


class Pixels(FeatureExtractor):
    """Pixel values in [0, 1], at most `max_resolution` high; quick, and blind to what is depicted."""

    name = "pixels"

    def __init__(self, max_resolution: int = 16) -> None:
        super().__init__()
        self.max_resolution = max_resolution

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        if x.shape[-1] > self.max_resolution:  # so that the covariance stays small
            x = F.adaptive_avg_pool2d(x, self.max_resolution)
        return x.flatten(1)
