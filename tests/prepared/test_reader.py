"""Images of a shard are of the manifest's format, size and classes, or the shard is damaged."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from diffusion_lit.prepared.manifest import Manifest, Split
from diffusion_lit.prepared.reader import PreparedImages
from diffusion_lit.prepared.shard import ShardInfo, write_shard


def encoded(kind: str = "png", size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def images(folder: Path, image: bytes, label: int) -> PreparedImages:
    """A set of one image, stored as PNG, that has two classes."""
    (folder / "train").mkdir()
    path = folder / "train" / "shard-00000.bin"
    write_shard([(image, label)], path, 1)
    shard = ShardInfo("train/shard-00000.bin", 1, path.stat().st_size, "")
    splits = {"train": Split(1, None, [shard])}
    manifest = Manifest(8, 3, "png", ["a", "b"], splits, "", "", "", "", 0, "")
    manifest.check()
    return PreparedImages(manifest, "train", lambda shard: folder / shard.file)


@pytest.mark.parametrize("label", [-1, 0, 1])
def test_what_prepare_writes_is_read(label: int, tmp_path: Path) -> None:
    found, labels = images(tmp_path, encoded(), label).fetch([0])
    assert found.shape == (1, 3, 8, 8) and labels is not None and labels.tolist() == [label]


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
