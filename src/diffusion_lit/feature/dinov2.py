"""The self-supervised features that agree best with people's judgement."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature.base import FeatureExtractor, to_colour
from diffusion_lit.feature.resize import bicubic
from diffusion_lit.feature.vision_transformer import VisionTransformer
from diffusion_lit.feature.weights import PublishedWeights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class DINOv2(FeatureExtractor):
    """1024 features of DINOv2's ViT-L/14: the normalised class token (Oquab et al. 2024, arXiv:2304.07193).

    As Stein et al. 2023 use it (arXiv:2306.04675), whose code resizes by Pillow to 224 bytes a side.

    Args:
        weights: a local copy of `dinov2_vitl14_pretrain.pth`; None takes it from torch's hub cache, and downloads it
            (1.2 GB) where it is not there.

    Raises:
        FileNotFoundError: if the weights are not there and cannot be fetched.
        ValueError: if the file is damaged, is another network's, or holds more than weights.
    """

    name = "dinov2"
    resolution, patch_size, num_features, depth, num_heads = 224, 14, 1024, 24, 16
    sees = "224 x 224, bicubic as Pillow (antialiased, rounded to bytes), grey as colour, ImageNet's mean and deviation"
    published = PublishedWeights(  # Meta states no checksum; this one is that of projects which pin the file
        file="dinov2_vitl14_pretrain.pth",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        licence="Apache-2.0",
    )
    licence = published.licence

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        path, self.weights_sha256 = self.published.find(weights)
        state = self.at_resolution(self.published.tensors(path))
        with torch.device("meta"):  # its weights are the file's
            self.network = VisionTransformer(
                self.resolution, self.patch_size, self.num_features, self.depth, self.num_heads
            )
        self.published.fill(self.network, state, path)

    def at_resolution(self, state: Any) -> Any:
        """The weights, with the embedding of 37 x 37 positions resized to the grid of patches.

        As DINOv2 itself resizes it: bicubic, by a factor that is a tenth of a patch too large.
        """
        if not isinstance(state, dict) or not isinstance(state.get("pos_embed"), Tensor):
            return {}
        state = {name: tensor for name, tensor in state.items() if name != "mask_token"}  # of training alone
        embedding = state["pos_embed"].float()
        side, trained = self.resolution // self.patch_size, round((embedding.shape[1] - 1) ** 0.5)
        if side != trained:
            grid = embedding[:, 1:].mT.unflatten(2, (trained, trained))
            grid = F.interpolate(grid, scale_factor=(side + 0.1) / trained, mode="bicubic")
            state["pos_embed"] = torch.cat([embedding[:, :1], grid.flatten(2).mT], dim=1)
        return state

    def features(self, images: Tensor) -> Tensor:
        from torchvision.transforms.functional import normalize

        x = bicubic(to_colour(images), self.resolution, rounded=True)
        return self.network(normalize(x / 255, MEAN, STD))
