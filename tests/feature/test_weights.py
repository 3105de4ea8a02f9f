"""Files of weights: found, fetched once, recognised, or asked for."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from diffusion_lit.feature import CLIP, DINOv2, FeatureExtractor, Inception, InceptionClean
from diffusion_lit.feature.weights import PublishedWeights

NEEDING_WEIGHTS = [Inception, InceptionClean, DINOv2, CLIP]
PUBLISHED = PublishedWeights("some.pth", "https://example.org/some.pth", "0" * 64, "MIT")


@pytest.mark.parametrize("kind", NEEDING_WEIGHTS)
def test_weights_that_are_not_there(kind: type[FeatureExtractor], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kind(weights=str(tmp_path / "weights.pth"))
    assert f"feature.weights={tmp_path / 'weights.pth'}" in str(caught.value)
    assert kind.published.file in str(caught.value)


@pytest.mark.parametrize("kind", NEEDING_WEIGHTS)
@pytest.mark.parametrize("error", [URLError("no network"), ConnectionResetError("no network")])
def test_without_weights_or_network(
    kind: type[FeatureExtractor], error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(FileNotFoundError) as caught:
        kind()
    place = tmp_path / "hub" / "checkpoints" / kind.published.file
    remedies = ("feature.weights=", "feature=random_vgg", "feature=pixels", "metrics.NAME.extractor.weights=")
    for part in (place, kind.published.url, "no network", *remedies):
        assert str(part) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10, "the message fits a screen"


@pytest.mark.parametrize("kind", NEEDING_WEIGHTS)
def test_a_file_of_something_else_is_refused(kind: type[FeatureExtractor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content in (b"not a file of tensors", pickle.dumps(print)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights.pth is (damaged|refused)"):
            kind(weights=str(path))
    for weights in ({}, {"pos_embed": torch.zeros(1, 5, 2)}, [1, 2]):
        torch.save(weights, path)
        with pytest.raises(ValueError, match=r"weights.pth (is damaged|holds weights of another network)"):
            kind(weights=str(path))


def test_a_download_is_made_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    published = replace(PUBLISHED, sha256=hashlib.sha256(content).hexdigest())
    calls = []

    def download(url: str, place: str, hash_prefix: str) -> None:
        calls.append((url, hash_prefix))
        Path(place).write_bytes(content)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert published.find(None) == published.find(None)
    assert published.find(None) == (tmp_path / "hub" / "checkpoints" / "some.pth", published.sha256)
    assert calls == [(published.url, published.sha256)]


def test_a_download_of_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.pth"
    source.write_bytes(b"something else")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"is not what was published .* name a copy with feature\.weights=PATH"):
        replace(PUBLISHED, url=source.as_uri()).find(None)
    assert not list((tmp_path / "hub" / "checkpoints").glob("some.pth"))


def test_weights_are_float32_and_fixed() -> None:
    network = nn.Linear(2, 3)
    state = {name: torch.ones_like(tensor).half() for name, tensor in network.state_dict().items()}
    PUBLISHED.fill(network, state, Path("some.pth"))
    assert network.weight.dtype == torch.float32 and not network.weight.requires_grad and not network.training
    with pytest.raises(ValueError, match=r"some.pth holds weights of another network than some.pth \(.*Missing"):
        PUBLISHED.fill(network, {"weight": state["weight"]}, Path("some.pth"))
