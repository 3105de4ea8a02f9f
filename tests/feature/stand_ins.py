"""Extractors with seeded random weights in files of the published format, in place of those that must be downloaded."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import torch_fidelity.feature_extractor_clip as fidelity_clip
import torch_fidelity.feature_extractor_inceptionv3 as fidelity_inception
from torch import Tensor, nn

from diffusion_lit.feature import CLIP, DINOv2, FeatureExtractor, Inception, InceptionClean, LabelClassifier
from diffusion_lit.feature.vision_transformer import VisionTransformer


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def smooth_images(count: int, channels: int, resolution: int) -> Tensor:
    """Images that differ after they were resized, as white noise does not."""
    return nn.functional.interpolate(random_images(count, channels, 4, 4).float(), resolution).to(torch.uint8)


class SmallDINOv2(DINOv2):
    """4 x 4 patches where the published one has 16 x 16, and two blocks."""

    resolution, patch_size, num_features, depth, num_heads = 28, 7, 32, 2, 4


class SmallCLIP(CLIP):
    """4 x 4 patches where the published one has 24 x 24, and two blocks."""

    resolution, patch_size, width, depth, num_heads, num_features = 28, 7, 64, 2, 1, 16


def inception_weights(path: Path) -> Path:
    """The same file as another name, for it is large, and drawn and written once."""
    path.symlink_to(Path(drawn_once().name, "inception.pth"))
    return path


@cache
def drawn_once() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity_inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity_inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = fidelity_inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):  # torch's default would let the signal fade to nothing
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    torch.save(network.state_dict(), Path(folder.name, "inception.pth"))
    return folder


def dinov2_weights(path: Path) -> Path:
    """With the embeddings of 6 x 6 positions, as the published file has those of 37 x 37, and its `mask_token`."""
    side, width = SmallDINOv2.patch_size, SmallDINOv2.num_features
    network = VisionTransformer(6 * side, side, width, SmallDINOv2.depth, SmallDINOv2.num_heads)
    torch.save(randomised(network.state_dict()) | {"mask_token": torch.zeros(1, width)}, path)
    return path


def clip_weights(path: Path) -> Path:
    """In half precision and with a part that reads text, as the published file's are."""
    small = SmallCLIP
    settings = (small.resolution, small.patch_size, small.width, small.depth, small.num_heads, small.num_features)
    weights = randomised(fidelity_clip.VisionTransformer(*settings).state_dict())
    visual = {f"visual.{name}": tensor.half() for name, tensor in weights.items()}
    torch.save(visual | {"text_projection": torch.zeros(8, small.num_features), "ln_final.bias": torch.zeros(8)}, path)
    return path


def randomised(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under which every parameter matters, biases and layer scales too."""
    generator = torch.Generator().manual_seed(0)
    factors = ("weight", "gamma")  # where they have one dimension
    return {
        name: 0.3 * torch.randn(tensor.shape, generator=generator) + (tensor.ndim == 1 and name.endswith(factors))
        for name, tensor in state.items()
    }


def trained_classifier(folder: Path) -> LabelClassifier:
    """A classifier of two classes, dark and light."""
    extractor = LabelClassifier(num_images=200, cache=str(folder / "cache"))
    labels = torch.arange(40) % 2
    images = (random_images(40, 1, 8, 8) // 2 + 120 * labels[:, None, None, None]).to(torch.uint8)
    extractor.prepare([(images, labels)], num_classes=2, content_hash="dark and light")
    return extractor


STAND_INS: dict[str, Callable[[Path], FeatureExtractor]] = {
    "inception": lambda folder: Inception(str(inception_weights(folder / "inception.pth"))),
    "inception_clean": lambda folder: InceptionClean(str(inception_weights(folder / "inception.pth"))),
    "dinov2": lambda folder: SmallDINOv2(str(dinov2_weights(folder / "dinov2.pth"))),
    "clip": lambda folder: SmallCLIP(str(clip_weights(folder / "clip.pt"))),
    "classifier": trained_classifier,
}
