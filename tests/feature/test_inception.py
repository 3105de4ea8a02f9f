"""Inception, beside torch-fidelity with the same weights."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from PIL import Image

from diffusion_lit.feature import Inception, InceptionClean
from tests.feature.stand_ins import inception_weights, random_images

FILE = Inception.published.file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inception_weights(tmp_path_factory.mktemp("weights") / FILE)


@pytest.fixture(scope="module")
def reference(weights: Path) -> fidelity.FeatureExtractorInceptionV3:
    names = ["2048", "logits_unbiased"]
    return fidelity.FeatureExtractorInceptionV3("inception-v3-compat", names, str(weights))


def test_it_is_torch_fidelitys(weights: Path, reference: fidelity.FeatureExtractorInceptionV3) -> None:
    extractor = Inception(weights=str(weights))
    for images in (random_images(1, 3, 32, 32), random_images(1, 1, 28, 28)):
        features, logits = reference(images.expand(-1, 3, -1, -1))
        assert features.shape == (len(images), 2048) and features.std() > 1e-2
        found = extractor(images)
        torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)
        assert logits.shape == (len(images), 1008) and logits.std() > 1e-2
        torch.testing.assert_close(extractor.logits(found), logits, rtol=1e-4, atol=1e-4)


def test_clean_it_is_the_same_network_on_pillows_images(
    weights: Path, reference: fidelity.FeatureExtractorInceptionV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """clean-fid resizes each channel as float32 by Pillow, and gives the network 299 x 299 pixels."""
    [image] = random_images(1, 3, 48, 48)
    channels = [Image.fromarray(channel.numpy().astype(np.float32)) for channel in image]
    resized = [np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255) for channel in channels]
    pillows = torch.from_numpy(np.stack(resized))[None]
    monkeypatch.setattr(fidelity, "interpolate_bilinear_2d_like_tensorflow1x", lambda *_, **__: pillows)
    [expected, _] = reference(image[None])
    found = InceptionClean(weights=str(weights))(image[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_it_takes_its_weights_from_the_hub_cache(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the message of a failed download says that the file belongs, it is found, and recognised."""
    place = tmp_path / "hub" / "checkpoints" / FILE
    place.parent.mkdir(parents=True)
    place.symlink_to(weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("asked for a download"))
    with pytest.raises(ValueError, match=r"is not the published .* Delete it, and it is downloaded again"):
        Inception()
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(Inception, "published", replace(Inception.published, sha256=checksum))
    expected = torch.load(weights, weights_only=True)["Mixed_7c.branch1x1.conv.weight"]
    assert torch.equal(Inception().network.Mixed_7c.branch1x1.conv.weight, expected)


def test_other_weights_of_its_shape_are_another_extractor(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    protocol = Inception(weights=str(weights)).protocol()
    assert protocol["weights_sha256"] != Inception.published.sha256
    assert "is not the published" in caplog.text and str(protocol["weights_sha256"]) in caplog.text
