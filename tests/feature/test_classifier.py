"""The classifier of a dataset's own classes: it learns them, once for each dataset."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from diffusion_lit.feature import LabelClassifier
from diffusion_lit.feature.reservoir import reservoir
from tests.feature.stand_ins import random_images

Batches = list[tuple[Tensor, Tensor | None]]


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    images = torch.from_numpy(found.images * 255 / 16).round().to(torch.uint8)[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(found.target)[order].long()


def some_images(count: int = 30, resolution: int = 8) -> Batches:
    return [(random_images(count, 3, resolution, resolution), torch.arange(count) % 3)]


class Untouched:
    """Images that nobody may read."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        pytest.fail("the images were read again")


def test_it_recognises_digits_that_it_has_not_seen(tmp_path: Path) -> None:
    images, labels = digits()
    extractor = LabelClassifier(num_images=12_000, cache=str(tmp_path))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with torch.inference_mode():
        extractor.prepare(zip(images[:1200].split(100), labels[:1200].split(100), strict=True), 10, "digits")
        found = extractor.logits(extractor(images[1200:])).argmax(1)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from the generator that others use"
    accuracy = float((found == labels[1200:]).float().mean())
    assert accuracy > 0.95
    stated = extractor.protocol()["held_out_accuracy"]
    assert isinstance(stated, str) and abs(float(stated) - accuracy) < 0.05


def test_it_is_trained_once(tmp_path: Path) -> None:
    settings = {"num_images": 100, "cache": str(tmp_path)}
    first, second = LabelClassifier(**settings), LabelClassifier(**settings)
    first.prepare(some_images(), 3, "some images")
    state = torch.get_rng_state()
    second.prepare(Untouched(), 3, "some images")
    assert torch.equal(torch.get_rng_state(), state)
    images = random_images(4, 3, 8, 8)
    assert torch.equal(first(images), second(images)) and first.protocol() == second.protocol()
    assert not any(p.requires_grad for p in second.parameters()) and not any(m.training for m in second.children())


@pytest.mark.parametrize("change", ["images", "classes", "seed", "num_images"])
def test_another_dataset_or_setting_trains_another(tmp_path: Path, change: str) -> None:
    first = LabelClassifier(num_images=100, cache=str(tmp_path))
    first.prepare(some_images(), 3, "some images")
    settings = {"num_images": 100, "cache": str(tmp_path)} | ({change: 200} if change in ("seed", "num_images") else {})
    other = LabelClassifier(**settings)  # type: ignore[arg-type]
    other.prepare(some_images(40), 4 if change == "classes" else 3, "others" if change == "images" else "some images")
    assert other.weights_sha256 != first.weights_sha256
    assert len(list(tmp_path.glob("*.pt"))) == 2


def damage_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_content(path: Path) -> None:
    torch.save({"weights": {}}, path)


@pytest.mark.parametrize("damage", [damage_bytes, damage_end, damage_content])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    extractor = LabelClassifier(num_images=100, cache=str(tmp_path))
    extractor.prepare(some_images(), 3, "some images")
    checksum = extractor.weights_sha256
    [path] = tmp_path.glob("*.pt")
    damage(path)  # type: ignore[operator]
    extractor.prepare(some_images(), 3, "some images")
    assert f"{path} cannot be read, and the classifier is trained anew" in caplog.text
    assert extractor.weights_sha256 == checksum, "the same images make the same classifier"
    extractor.prepare(Untouched(), 3, "some images")


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    extractor = LabelClassifier(num_images=100, cache=str(tmp_path))
    images = random_images(4, 3, 8, 8)
    cases: list[tuple[Batches, int | None, str]] = [
        ([(images, None)], None, "no classes"),
        ([(images, torch.zeros(4, dtype=torch.long))], 1, "1 class"),
        ([(images, None)], 3, "no labels"),
        ([(images, torch.full((4,), -1))], 3, "no labels"),
    ]
    for batches, num_classes, what in cases:
        with pytest.raises(ValueError, match=f"the training images have {what}; choose feature=random_vgg"):
            extractor.prepare(batches, num_classes, "some images")
    assert not list(tmp_path.glob("*.pt"))


def test_images_of_unknown_class_are_left_out(tmp_path: Path) -> None:
    images, labels = some_images()[0]
    assert labels is not None
    first, second = (LabelClassifier(num_images=100, cache=str(tmp_path / name)) for name in "ab")
    first.prepare([(images, labels)], 3, "some images")
    more = torch.cat([random_images(2, 3, 8, 8, seed=1), images])
    second.prepare([(more, torch.cat([torch.tensor([-1, -1]), labels]))], 3, "some images")
    assert first.weights_sha256 == second.weights_sha256


def test_large_images_are_shrunk_and_small_ones_refused(tmp_path: Path) -> None:
    extractor = LabelClassifier(num_images=100, cache=str(tmp_path))
    extractor.prepare(some_images(resolution=64), 3, "some images")
    flat = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8)
    assert torch.equal(extractor(flat), extractor(flat[:, :, :32, :32]))
    with pytest.raises(ValueError, match=r"at least 8 pixels a side, got 8 x 7; use feature=pixels"):
        extractor.check(3, 8, 7)
    with pytest.raises(ValueError, match=r"feature\.num_images must be at least 1, got 0"):
        LabelClassifier(num_images=0)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    extractor = LabelClassifier(cache=str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match=r"feature\.cache=.*cannot be written to .* use feature\.cache=DIR"):
        extractor.prepare(Untouched(), 3, "some images")


def test_a_reservoir_keeps_every_example_equally_often() -> None:
    batches = [(torch.arange(i, i + 5), torch.arange(i, i + 5)) for i in range(0, 20, 5)]
    assert torch.equal(reservoir(batches, 100, 0)[0], torch.arange(20))
    counts = torch.zeros(20)
    for seed in range(500):
        kept, labels = reservoir(batches, 8, seed)
        assert torch.equal(kept, labels) and len(kept.unique()) == 8
        counts[kept] += 1
    expected = 500 * 8 / 20
    assert (counts - expected).abs().max() < 4 * (expected * (1 - 8 / 20)) ** 0.5
