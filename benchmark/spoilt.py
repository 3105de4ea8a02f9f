"""Real images that are spoilt in known ways."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur, hflip

from diffusion_lit.data import ArrayImages, DigitsData
from diffusion_lit.data.torchvision import TorchvisionData

DROPPED = 7
"""The class that is left out."""
REPEATS = 20
"""How often each duplicated image comes."""


def all_images(mnist: str | None) -> ArrayImages:
    """scikit-learn's digits, or torchvision's MNIST in the folder `mnist`, with their labels."""
    data = DigitsData() if mnist is None else TorchvisionData("MNIST", mnist, 28, download=False)
    data.setup()
    found = [split.fetch(list(range(len(split)))) for split in data.splits.values()]
    return ArrayImages(
        torch.cat([images for images, _ in found]), torch.cat([own for _, own in found if own is not None])
    )


def parts(images: ArrayImages, num: int) -> list[ArrayImages]:
    """Training, held-out and fresh images, `num` of each, or a third of all if they are fewer."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return [ArrayImages(*images.fetch(own.tolist())) for own in order.split(min(num, len(images) // 3))[:3]]


def spoilt(training: ArrayImages, held_out: ArrayImages, fresh: ArrayImages) -> dict[str, ArrayImages]:
    """What stands in for generated images, by what was done to it."""
    images, labels = fresh.images, fresh.labels
    assert labels is not None
    others = (labels != DROPPED).nonzero().flatten().tolist()
    few = [i for i in range(len(images) // REPEATS) for _ in range(REPEATS)]
    return {
        "reference": held_out,
        "blurred": ArrayImages(gaussian_blur(images, kernel_size=[5, 5], sigma=[images.shape[-1] / 16]), labels),
        "noised": ArrayImages(noised(images, 40), labels),
        "JPEG": ArrayImages(compressed(images, quality=5), labels),
        "flipped": ArrayImages(hflip(images), labels),
        "class dropped": ArrayImages(*fresh.fetch(others)),
        "duplicated": ArrayImages(*fresh.fetch(few)),
        "memorized": ArrayImages(noised(training.images, 5), training.labels),
    }


def noised(images: Tensor, std: float) -> Tensor:
    """White noise, of `std` in 0..255."""
    noise = std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def compressed(images: Tensor, quality: int) -> Tensor:
    """Grey images as JPEG keeps them."""

    def kept(image: np.ndarray) -> np.ndarray:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return torch.from_numpy(np.stack([kept(image) for image in images[:, 0].numpy()]))[:, None]
