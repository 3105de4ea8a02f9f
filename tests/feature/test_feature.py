"""What holds for all extractors: features that are a function of the image, a name, and a protocol."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.feature import Classifier, FeatureExtractor, Pixels, check_features
from diffusion_lit.feature.precision import BACKENDS, full_precision
from tests.feature.stand_ins import STAND_INS, random_images, smooth_images

EXTRACTORS = sorted(path.stem for path in (CONFIG_FOLDER / "feature").glob("*.yaml"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FeatureExtractor]:
    """A member of the group by its name, built once; with random weights where it would need a download."""

    @cache
    def build(name: str) -> FeatureExtractor:
        if name in STAND_INS:
            return STAND_INS[name](tmp_path_factory.mktemp("weights"))
        return instantiate(OmegaConf.load(CONFIG_FOLDER / "feature" / f"{name}.yaml"))

    return build


@pytest.fixture(params=EXTRACTORS)
def extractor(request: pytest.FixtureRequest, built: Callable[[str], FeatureExtractor]) -> FeatureExtractor:
    return built(request.param)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def test_features_are_a_function_of_the_image(extractor: FeatureExtractor) -> None:
    images = smooth_images(2, 3, 16)
    extractor.check(*images.shape[1:])
    features = extractor(images)
    assert features.shape == (2, extractor.num_features) and features.dtype == torch.float32
    assert features.isfinite().all() and not features.requires_grad
    assert (features[0] - features[1]).abs().max() > 0.1 * features.std()
    with torch.autocast("cpu", torch.bfloat16):
        alone = extractor(images[1:])
    assert alone.dtype == torch.float32
    assert distance(alone, features[1:]) < 1e-5, "whatever else is in the batch, and whatever precision is around"


def test_logits_are_computed_in_float32(extractor: FeatureExtractor) -> None:
    if not isinstance(extractor, Classifier):
        pytest.skip("it tells no classes apart")
    features = torch.randn(2, extractor.num_features or 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = extractor.logits(features)
    assert found.dtype == torch.float32 and torch.equal(found, extractor.logits(features))


def test_grey_images_have_features_too(extractor: FeatureExtractor) -> None:
    images = smooth_images(1, 1, 16)
    extractor.check(*images.shape[1:])
    features = extractor(images)
    assert features.shape == (1, extractor.num_features) and features.isfinite().all()


def test_extractors_have_names_of_their_own_and_do_not_learn(
    extractor: FeatureExtractor, request: pytest.FixtureRequest
) -> None:
    assert extractor.name == request.node.callspec.params["extractor"], "it goes into the name of the metric"
    assert not any(p.requires_grad for p in extractor.parameters())
    assert not any(module.training for module in extractor.children())


def test_an_extractor_states_what_its_figures_depend_on(extractor: FeatureExtractor) -> None:
    extractor.check(3, 16, 16)
    protocol = extractor.protocol()
    assert protocol["feature"] == extractor.name and protocol["num_features"] == extractor.num_features is not None
    assert isinstance(protocol["sees"], str)
    assert (protocol["weights_sha256"] is not None) == (extractor.name in STAND_INS)
    assert (protocol["licence"] is not None) == (extractor.name in STAND_INS and extractor.name != "classifier")


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_are_neither_grey_nor_colour_are_refused(extractor: FeatureExtractor, channels: int) -> None:
    if extractor.name == "pixels":
        extractor.check(channels, 16, 16)
        assert extractor(random_images(2, channels, 16, 16)).shape == (2, 256 * channels)
        return
    words = f"feature={extractor.name} reads images of 1 channel .* got {channels}"
    with pytest.raises(ValueError, match=words) as error:
        extractor.check(channels, 16, 16)
    assert ("first_three=true" in str(error.value)) == (channels > 3)  # of two there are no first three


def test_precision_is_given_back() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        before = [backend.fp32_precision for backend in BACKENDS]
        with full_precision("cpu"):
            assert {backend.fp32_precision for backend in BACKENDS} == {"ieee"}
        assert [backend.fp32_precision for backend in BACKENDS] == before and before[1] == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_pixels_are_the_pixels() -> None:
    images = random_images(4, 3, 8, 8)
    assert torch.equal(Pixels()(images), images.reshape(4, 192).float() / 255)
    assert torch.equal(Pixels(max_resolution=8)(images), Pixels()(images))
    with pytest.raises(ValueError, match=r"feature\.max_resolution must be at least 1 pixel, got 0"):
        Pixels(max_resolution=0)


def test_large_images_are_averaged_down_to_pixels() -> None:
    images = random_images(2, 3, 32, 32)
    blocks = images.double().reshape(2, 3, 16, 2, 16, 2).mean((3, 5)) / 255
    torch.testing.assert_close(Pixels(max_resolution=16)(images).double(), blocks.reshape(2, 768), rtol=0, atol=1e-6)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_an_error(broken: float) -> None:
    features = torch.randn(5, 3)
    check_features(features, "some features")
    features[3, 1] = features[3, 2] = broken
    with pytest.raises(ValueError, match="some features: those of 1 of 5 images are not finite"):
        check_features(features, "some features")


def test_features_that_are_all_alike_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    alike = torch.randn(3).repeat(5, 1)
    check_features(alike[:1], "features of one image")
    check_features(alike + 1e-3 * torch.randn(5, 3), "features that differ")
    assert not caplog.messages
    check_features(alike * (1 + 1e-7 * torch.randn(5, 1)), "some features")
    check_features(torch.zeros(5, 3), "no features")
    assert [message.split(":")[0] for message in caplog.messages] == ["some features", "no features"]
