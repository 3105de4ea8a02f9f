"""The pixels themselves."""

import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature.base import FeatureExtractor


class Pixels(FeatureExtractor):
    """Pixel values in [0, 1], of any number of channels, at most `max_resolution` high and wide.

    Quick, and blind to what is depicted.
    """

    name = "pixels"

    def __init__(self, max_resolution: int = 16) -> None:
        super().__init__()
        if max_resolution < 1:
            raise ValueError(f"feature.max_resolution must be at least 1 pixel, got {max_resolution}; 16 is usual")
        self.max_resolution = max_resolution
        self.sees = f"[0, 1], averaged down to at most {max_resolution} pixels a side"

    def check(self, channels: int, height: int, width: int) -> None:
        self.num_features = channels * min(height, self.max_resolution) * min(width, self.max_resolution)

    def features(self, images: Tensor) -> Tensor:
        height, width = (min(side, self.max_resolution) for side in images.shape[2:])  # a small covariance
        return F.adaptive_avg_pool2d(images.float() / 255, (height, width)).flatten(1)
