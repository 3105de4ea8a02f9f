"""What an image and its caption have in common."""

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.feature.base import FeatureExtractor, to_colour
from diffusion_lit.feature.resize import bicubic
from diffusion_lit.feature.weights import PublishedWeights

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's training images'
PREFIX = "visual."


class CLIP(FeatureExtractor):
    """768 features of CLIP's ViT-L/14 at 336 pixels (Radford et al. 2021, arXiv:2103.00020), by torch-fidelity.

    The projected embedding, of length 1, as CMMD uses it (Jayasumana et al. 2024, arXiv:2401.09603), whose code resizes
    by Pillow to 336 bytes a side.

    Args:
        weights: a local copy of OpenAI's `ViT-L-14-336px.pt`, or a state dict of that model, as `torch.save` writes it;
            None takes it from torch's hub cache, and downloads it (0.9 GB) where it is not there. OpenAI's file is a
            program: it is read if its SHA-256 is the published one.

    Raises:
        FileNotFoundError: if the weights are not there and cannot be fetched.
        ValueError: if the file is damaged, is another network's, or holds more than weights and is not OpenAI's.
    """

    name = "clip"
    resolution, patch_size, width, depth, num_heads, num_features = 336, 14, 1024, 24, 16, 768
    sees = "336 x 336, bicubic as Pillow (antialiased, rounded to bytes), grey as colour, CLIP's mean and deviation"
    published = PublishedWeights(
        file="ViT-L-14-336px.pt",
        url="https://openaipublic.azureedge.net/clip/models/"
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
        sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        licence="MIT",
    )
    licence = published.licence

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        path, self.weights_sha256 = self.published.find(weights)
        state = self.read(path)
        from torch_fidelity.feature_extractor_clip import VisionTransformer

        with torch.device("meta"):  # its weights are the file's
            self.network = VisionTransformer(
                self.resolution, self.patch_size, self.width, self.depth, self.num_heads, self.num_features
            )
        visual = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        self.published.fill(self.network, visual, path)

    def read(self, path: Path) -> dict[str, Any]:
        """The weights by their names; OpenAI's TorchScript is opened only where it is known to be theirs."""
        if self.weights_sha256 != self.published.sha256:
            state = self.published.tensors(path)
            return state if isinstance(state, dict) else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, that TorchScript is deprecated
            return torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]

    def features(self, images: Tensor) -> Tensor:
        from torchvision.transforms.functional import normalize

        x = bicubic(to_colour(images), self.resolution, rounded=True)
        return F.normalize(self.network(normalize(x / 255, MEAN, STD)), dim=1)
