"""What images are compared by: deterministic features, weights that are found or asked for, and the loss by time."""

import functools
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from diffusion_lit.command import CONFIG_FOLDER
from diffusion_lit.feature import FeatureExtractor, Inception, Pixels, RandomVGG

EXTRACTORS = sorted(path.stem for path in (CONFIG_FOLDER / "feature").glob("*.yaml") if path.stem != "inception")
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


@functools.cache
def extractor_of(name: str) -> FeatureExtractor:
    return instantiate(OmegaConf.load(CONFIG_FOLDER / "feature" / f"{name}.yaml"))


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [8, 32])
def test_features_are_a_function_of_the_image(name: str, channels: int, resolution: int) -> None:
    extractor = extractor_of(name)
    images = random_images(3, channels, resolution, resolution)
    features = extractor(images)
    assert features.dtype == torch.float32 and features.ndim == 2 and len(features) == 3
    assert features.isfinite().all() and not features.requires_grad
    assert torch.equal(extractor(images), features)
    # an image's features do not depend on the rest of the batch, but for the order of float32 sums
    torch.testing.assert_close(extractor(images[1:2]), features[1:2], rtol=1e-4, atol=1e-4)
    scale = features.std()
    assert all((features[i] - features[j]).abs().max() > 0.1 * scale for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractors_have_names_of_their_own_and_do_not_learn(name: str) -> None:
    extractor = extractor_of(name)
    assert extractor.name == name, "it goes into the name of the metric"
    assert not any(p.requires_grad for p in extractor.parameters())


def test_pixels_are_the_pixels() -> None:
    images = random_images(4, 3, 8, 8)
    assert torch.equal(Pixels()(images), images.reshape(4, 192).float() / 255)
    assert torch.equal(Pixels(max_resolution=8)(images), Pixels()(images))


def test_large_images_are_averaged_down_to_pixels() -> None:
    images = random_images(2, 3, 32, 32)
    blocks = images.double().reshape(2, 3, 16, 2, 16, 2).mean((3, 5)) / 255
    torch.testing.assert_close(Pixels(max_resolution=16)(images).double(), blocks.reshape(2, 768), rtol=0, atol=1e-6)


def test_random_vgg_is_the_same_in_every_run() -> None:
    images = random_images(2, 3, 32, 32)
    features = extractor_of("random_vgg")(images)
    assert features.shape == (2, 64)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert torch.equal(RandomVGG(seed=0)(images), features)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from the generator that others use"
    assert (RandomVGG(seed=1)(images) - features).abs().mean() > 0.1 * features.std()


def test_random_vgg_keeps_the_scale_of_what_it_sees() -> None:
    """Kaiming's weights neither blow up nor fade through 16 layers: features of white noise are about 1."""
    features = extractor_of("random_vgg")(random_images(4, 3, 32, 32))
    assert 0.1 < features.std() < 10


def test_random_vgg_takes_grey_as_colour_and_enlarges_small_images() -> None:
    extractor, grey = extractor_of("random_vgg"), random_images(2, 1, 8, 8)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))
    # whole numbers, so that the enlarged image is bytes too: each of the 8 x 8 pixels is a flat one
    flat = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    enlarged = torch.full((1, 1, 32, 32), 77, dtype=torch.uint8)
    torch.testing.assert_close(extractor(flat), extractor(enlarged), rtol=1e-4, atol=1e-4)


def test_random_vgg_sees_pixels_between_minus_one_and_one() -> None:
    """Without biases its layers are homogeneous: six tenths of black, or of white, have six tenths of the features."""
    dark, black, light, white = (
        extractor_of("random_vgg")(torch.full((1, 1, 32, 32), byte, dtype=torch.uint8)) for byte in (51, 0, 204, 255)
    )
    for weak, strong in ((dark, black), (light, white)):
        assert strong.abs().max() > 1e-3
        torch.testing.assert_close(weak, 0.6 * strong, rtol=1e-3, atol=1e-5)


def test_inception_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Inception(weights=str(tmp_path / "weights.pth"))
    assert f"feature.weights={tmp_path / 'weights.pth'}" in str(caught.value)
    assert INCEPTION_FILE in str(caught.value)


@pytest.mark.parametrize("error", [URLError("no network"), ConnectionResetError("no network")])
def test_inception_without_weights_or_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(FileNotFoundError) as caught:
        Inception()
    place = tmp_path / "hub" / "checkpoints" / INCEPTION_FILE
    for part in (place, "no network", "feature.weights=", "feature=random_vgg", "feature=pixels"):
        assert str(part) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10, "the message fits a screen"


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the right shapes, random, in place of the file that has to be downloaded."""
    path = tmp_path_factory.mktemp("weights") / INCEPTION_FILE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # torch's default would let the signal fade to nothing
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    torch.save(network.state_dict(), path)
    return path


def test_inception_is_torch_fidelitys(inception_weights: Path) -> None:
    reference = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_weights)
    )
    extractor = Inception(weights=str(inception_weights))
    assert extractor.name == "inception" and not any(p.requires_grad for p in extractor.parameters())
    colour, grey = random_images(2, 3, 32, 32), random_images(1, 1, 28, 28)
    (expected,) = reference(colour)
    assert expected.shape == (2, 2048) and (expected[0] - expected[1]).abs().mean() > 1e-2
    torch.testing.assert_close(extractor(colour), expected, rtol=1e-4, atol=1e-4)
    (expected,) = reference(torch.cat([grey, grey, grey], dim=1))
    torch.testing.assert_close(extractor(grey), expected, rtol=1e-4, atol=1e-4)


def test_inception_takes_its_weights_from_the_hub_cache(
    inception_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the message of a failed download says that the file belongs, it is found."""
    place = tmp_path / "hub" / "checkpoints" / INCEPTION_FILE
    place.parent.mkdir(parents=True)
    place.symlink_to(inception_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("asked for a download"))
    expected = torch.load(inception_weights, weights_only=True)["Mixed_7c.branch1x1.conv.weight"]
    assert torch.equal(Inception().network.Mixed_7c.branch1x1.conv.weight, expected)
