"""Images of a shard are of the manifest's format, size and classes, or the shard is damaged."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from diffusion_lit.prepared.manifest import Latents, Manifest, Split
from diffusion_lit.prepared.reader import PreparedImages
from diffusion_lit.prepared.shard import ShardInfo, write_shard


def encoded(kind: str = "png", size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def prepared(folder: Path, shards: list[list[tuple[bytes, int]]], **changes: Any) -> PreparedImages:
    """A set of colour images, stored as PNG, that has two classes."""
    (folder / "train").mkdir()
    infos = []
    for number, items in enumerate(shards):
        path = folder / "train" / f"shard-{number:05d}.bin"
        write_shard(items, path, len(items))
        infos.append(ShardInfo(f"train/{path.name}", len(items), path.stat().st_size, ""))
    splits = {"train": Split(sum(map(len, shards)), None, infos)}
    manifest = replace(Manifest(8, 3, "png", ["a", "b"], splits, "", "", "", "", 0, ""), **changes)
    manifest.check()
    return PreparedImages(manifest, "train", lambda shard: folder / shard.file)


def images(folder: Path, image: bytes, label: int) -> PreparedImages:
    """A set of one image."""
    return prepared(folder, [[(image, label)]])


@pytest.mark.parametrize("label", [-1, 0, 1])
def test_what_prepare_writes_is_read(label: int, tmp_path: Path) -> None:
    found, labels = images(tmp_path, encoded(), label).fetch([0])
    assert found.shape == (1, 3, 8, 8) and labels is not None and labels.tolist() == [label]


@pytest.mark.parametrize("kind", ["png", "grey", "raw", "latents"])
def test_images_come_in_the_order_asked_for_from_any_shard(kind: str, tmp_path: Path) -> None:
    channels = {"grey": 1, "latents": 4}.get(kind, 3)
    stored = torch.arange(5 * channels * 2 * 3).view(5, channels, 2, 3).to(torch.uint8)
    if kind == "latents":
        stored = stored.half() / 8 - 3
    items = [(image.numpy().tobytes(), number % 3 - 1) for number, image in enumerate(stored)]
    if kind in ("png", "grey"):
        for number, image in enumerate(stored):
            file = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(file, "png")
            items[number] = (file.getvalue(), items[number][1])
    latents = Latents("vae", "0" * 64, 1.0, 0.0, 8) if kind == "latents" else None
    encoding = "png" if kind in ("png", "grey") else "raw"
    changes = {"resolution": [2, 3], "channels": channels, "encoding": encoding, "latents": latents}
    found = prepared(tmp_path, [items[:2], items[2:]], **changes)
    assert len(found) == 5
    for order in ([4, 0, 3, 1, 4], [2], [0, 1]):
        read, labels = found.fetch(order)
        assert read.dtype == stored.dtype and torch.equal(read, stored[order])
        assert labels is not None and labels.tolist() == [number % 3 - 1 for number in order]


def test_one_bad_class_among_many_is_damage(tmp_path: Path) -> None:
    found = prepared(tmp_path, [[(encoded(), 0)], [(encoded(), 1), (encoded(), 2)]])
    assert found.fetch([0, 1])[0].shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"shard train/shard-00001\.bin is damaged: it has classes"):
        found.fetch([0, 1, 2])


def test_an_evicted_shard_is_fetched_again_once(tmp_path: Path) -> None:
    """Another process may make room between a shard's arrival and its being opened."""
    found, asked = images(tmp_path, encoded(), 1), list[str]()

    def find(shard: ShardInfo) -> Path:
        asked.append(shard.file)
        return tmp_path / (shard.file if len(asked) > 1 else "gone")

    found.find = find
    assert found.fetch([0])[0].shape == (1, 3, 8, 8) and len(asked) == 2
    found.fetch([0])
    assert len(asked) == 2, "a shard stays open"


@pytest.mark.parametrize(
    "image, label",
    [
        (encoded("eps"), 0),
        (encoded("jpeg"), 0),
        (encoded(size=(9, 8)), 0),
        (encoded(size=(20_000, 20_000), mode="1"), 0),
        (encoded(mode="L"), 0),
        (encoded()[:40], 0),
        (b"", 0),
        (encoded(), 2),
        (encoded(), -2),
        (encoded(), 2**62),
    ],
    ids=["eps", "jpeg", "size", "bomb", "grey", "cut", "empty", "class", "negative class", "huge class"],
)
def test_other_images_and_classes_are_damage(
    image: bytes, label: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would hand PostScript to Ghostscript, which runs it."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    with pytest.raises(ValueError, match=r"shard train/shard-00000\.bin is damaged"):
        images(tmp_path, image, label).fetch([0])


def test_a_damaged_table_is_named_before_anything_is_read(tmp_path: Path) -> None:
    found = images(tmp_path, encoded(), 0)
    path = tmp_path / "train" / "shard-00000.bin"
    path.write_bytes(np.zeros(path.stat().st_size, np.uint8).tobytes())
    with pytest.raises(ValueError, match="table of contents"):
        found.fetch([0])
