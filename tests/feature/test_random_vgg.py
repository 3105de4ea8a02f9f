"""A VGG16 with random weights: the same in every run, and torchvision's network."""

import pytest
import torch
from torch import Tensor

from diffusion_lit.feature import RandomVGG, random_vgg
from tests.feature.narrow_vgg import AS_PUBLISHED, narrowed
from tests.feature.stand_ins import random_images


@pytest.fixture(autouse=True)
def as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_vgg, "seeded_vgg16", AS_PUBLISHED)


@pytest.fixture(scope="module")
def extractor() -> RandomVGG:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_vgg, "seeded_vgg16", AS_PUBLISHED)
        return RandomVGG()


def test_it_is_the_same_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models.vgg16", narrowed)
    images = random_images(2, 3, 32, 32)
    first = RandomVGG()
    features = first(images)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert torch.equal(RandomVGG(seed=0)(images), features)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from the generator that others use"
    assert (RandomVGG(seed=1)(images) - features).abs().mean() > 0.1 * features.std()
    assert first.protocol()["seed"] == 0


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 40), (3, 64, 64)])
def test_it_is_torchvisions_network(extractor: RandomVGG, shape: tuple[int, int, int]) -> None:
    """Also where the pixel that is left is not copied 7 x 7 times before the linear layers."""
    images = random_images(2, *shape)
    expected = extractor.network(images.expand(-1, 3, -1, -1) / 127.5 - 1)
    torch.testing.assert_close(extractor(images), expected, rtol=0, atol=1e-5)


def test_it_keeps_the_scale_of_what_it_sees(extractor: RandomVGG) -> None:
    """Kaiming's weights neither blow up nor fade through 16 layers: features of white noise are about 1."""
    features = extractor(random_images(4, 3, 32, 32))
    assert 0.1 < features.std() < 10


def test_it_takes_grey_as_colour_and_enlarges_small_images(extractor: RandomVGG) -> None:
    grey = random_images(2, 1, 8, 8)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))
    # whole numbers, so that the enlarged image is bytes too: each of the 8 x 8 pixels is a flat one
    flat, enlarged = flat_image(77, 8), flat_image(77, 32)
    torch.testing.assert_close(extractor(flat), extractor(enlarged), rtol=1e-4, atol=1e-4)


def test_it_reads_the_first_three_channels_where_that_is_asked(
    extractor: RandomVGG, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(2, 5, 8, 8)
    with pytest.raises(
        ValueError, match=r"got 5: feature=pixels compares any, and feature=random_vgg feature\.first_three"
    ):
        extractor.check(5, 8, 8)
    expected = extractor(images[:, :3])
    monkeypatch.setattr(extractor, "first_three", True)
    extractor.check(5, 8, 8)
    assert torch.equal(extractor(images), expected)
    with pytest.raises(ValueError, match="got 2"):
        extractor.check(2, 8, 8)


def test_it_sees_pixels_between_minus_one_and_one(extractor: RandomVGG) -> None:
    """Without biases its layers are homogeneous: six tenths of black, or of white, have six tenths of the features."""
    dark, black, light, white = (extractor(flat_image(byte, 32)) for byte in (51, 0, 204, 255))
    for weak, strong in ((dark, black), (light, white)):
        assert strong.abs().max() > 1e-3
        torch.testing.assert_close(weak, 0.6 * strong, rtol=1e-3, atol=1e-5)


def flat_image(byte: int, resolution: int) -> Tensor:
    return torch.full((1, 1, resolution, resolution), byte, dtype=torch.uint8)
