"""The resizing of images, beside Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lit.feature.resize import bicubic
from tests.feature.stand_ins import random_images

SHAPES = [(28, 28, 299), (32, 32, 224), (64, 48, 32), (40, 224, 224), (9, 336, 28)]


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_it_is_clean_fids(height: int, width: int, size: int) -> None:
    """Each channel as float32 by Pillow, cut off at 0 and 255 (Parmar et al. 2022)."""
    images = random_images(2, 3, height, width)
    for image, found in zip(images, bicubic(images, size), strict=True):
        for channel, result in zip(image.numpy(), found.numpy(), strict=True):
            one = Image.fromarray(channel.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
            expected = np.clip(np.asarray(one), 0, 255)
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)
    assert (bicubic(images, size) % 1).any(), "not rounded"


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_rounded_it_is_pillows(height: int, width: int, size: int) -> None:
    images = random_images(2, 3, height, width)
    for image, found in zip(images, bicubic(images, size, rounded=True), strict=True):
        one = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.array(one)).permute(2, 0, 1)
        off = (found - expected).abs()
        assert off.max() <= 1 and off.mean() < 1e-3, "but for ties, which Pillow rounds in fixed point"
