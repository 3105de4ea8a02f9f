"""The digits: scikit-learn's own images and labels, split once and for all."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from diffusion_lit.data import ArrayImages, DigitsData
from tests.launch import ALL_DIGITS

SIZES = {"train": 1437, "val": 180, "test": 180}


def splits_of(data: DigitsData) -> dict[str, tuple[Tensor, Tensor]]:
    """All images and labels of each split, fetched."""
    data.setup()
    fetched = {name: images.fetch(list(range(len(images)))) for name, images in data.splits.items()}
    assert all(labels is not None for _, labels in fetched.values())
    return {name: (images, labels) for name, (images, labels) in fetched.items() if labels is not None}


@pytest.fixture(scope="module", autouse=True)
def all_digits() -> Iterator[None]:
    """And not the few that other tests train on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitsData, "load", ALL_DIGITS)
        yield


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[Tensor, Tensor]]:
    return splits_of(DigitsData())


@pytest.fixture(scope="module")
def source() -> dict[bytes, list[int]]:
    """scikit-learn's classes of each image, by the image's values 0..16."""
    digits = load_digits()
    classes: dict[bytes, list[int]] = {}
    for values, label in zip(digits.images.astype(np.uint8), digits.target, strict=True):
        classes.setdefault(values.tobytes(), []).append(int(label))
    return classes


def test_every_digit_lies_in_one_split_with_its_label(
    splits: dict[str, tuple[Tensor, Tensor]], source: dict[bytes, list[int]]
) -> None:
    assert {name: len(images) for name, (images, _) in splits.items()} == SIZES
    remaining = {values: list(labels) for values, labels in source.items()}
    for images, labels in splits.values():
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert images.min() == 0 and images.max() == 255
        values = (images.double() * 16 / 255).round().to(torch.uint8)
        assert torch.equal((values.double() * 255 / 16).round().to(torch.uint8), images), "17 levels and no others"
        for image, label in zip(values, labels.tolist(), strict=True):
            remaining[image.numpy().tobytes()].remove(label)  # raises if it is not there, or there no more
    assert not any(remaining.values())


def test_splits_are_stratified(splits: dict[str, tuple[Tensor, Tensor]]) -> None:
    whole = np.bincount(load_digits().target)
    for name, (_, labels) in splits.items():
        share = whole * SIZES[name] / sum(SIZES.values())
        assert np.abs(np.bincount(labels.numpy(), minlength=10) - share).max() <= 1, name


def test_the_split_does_not_depend_on_the_seed(splits: dict[str, tuple[Tensor, Tensor]]) -> None:
    for name, (images, labels) in splits_of(DigitsData(batch_size=7, seed=123)).items():
        assert torch.equal(images, splits[name][0]) and torch.equal(labels, splits[name][1])


def test_batches_are_as_documented() -> None:
    data = DigitsData(batch_size=32, seed=1)
    data.setup()
    assert (data.resolution, data.channels, data.num_classes) == (8, 1, 10)
    assert data.class_names == [str(digit) for digit in range(10)]
    for name, loader in {
        "train": data.train_dataloader(),
        "val": data.val_dataloader(),
        "test": data.test_dataloader(),
    }.items():
        split = data.splits[name]
        assert isinstance(split, ArrayImages)
        addresses = list(loader.batch_sampler)  # type: ignore[arg-type]
        for given, batch in zip(loader, addresses, strict=True):
            images, labels, indices = given.images, given.condition.label, [index for _, index in batch]
            assert given.indices == indices
            assert images.dtype == torch.uint8 and images.shape == (len(batch), 1, 8, 8)
            assert labels is not None and labels.dtype == torch.int64
            assert torch.equal(images, split.images[indices])
            assert split.labels is not None and torch.equal(labels, split.labels[indices])
        assert sum(map(len, addresses)) == (1437 // 32 * 32 if name == "train" else 180)


def test_the_seed_decides_the_order() -> None:
    first = {}
    for seed in (0, 0, 1):
        data = DigitsData(batch_size=32, seed=seed)
        data.setup()
        images = next(iter(data.train_dataloader())).images
        assert torch.equal(first.setdefault(seed, images), images)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(("setting", "value"), [("batch_size", 0), ("num_workers", -1)])
def test_bad_settings_are_named(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"data\.{setting} .* {value}$"):
        DigitsData(**{setting: value})
