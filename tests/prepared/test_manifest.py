"""What a manifest may say, to its limits, and what it says of its images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffusion_lit.prepared.manifest import Latents, Manifest, Split
from diffusion_lit.prepared.shard import ShardInfo

LATENTS = Latents("vae", "0123456789abcdef" * 4, scale=0.18, shift=-0.5, factor=1)


def split(name: str = "train", counts: list[int] | None = None) -> Split:
    """Two shards of two encoded images and one."""
    shards = [ShardInfo(f"{name}/shard-0000{i}.bin", count, 1000, f"{i}" * 64) for i, count in enumerate((2, 1))]
    return Split(3, counts, shards)


def manifest(**changes: Any) -> Manifest:
    plain = Manifest(8, 3, "png", ["a", "b"], {"train": split(counts=[1, 2])}, "hash", "folder", "none", "", 0, "plan")
    return replace(plain, **changes)


def raw(item_bytes: int, **changes: Any) -> Manifest:
    shard = ShardInfo("train/shard-00000.bin", 1, 12 + 16 + item_bytes, "")
    return manifest(encoding="raw", class_names=None, splits={"train": Split(1, None, [shard])}, **changes)


ALLOWED = {
    "png": manifest(),
    "all splits": manifest(splits={name: split(name) for name in ("train", "val", "test")}),
    "no classes": manifest(class_names=None, splits={"val": split("val")}),
    "no class left": manifest(class_names=None, splits={"val": split("val", [])}),
    "raw": raw(3 * 4 * 2, resolution=[4, 2]),
    "a pixel": raw(1, resolution=1, channels=1),
    "latents": raw(4 * 2 * 2 * 2, resolution=2, channels=4, latents=LATENTS),
    "the largest": manifest(resolution=2**15),
}
ONE = split().shards[0]
REFUSED = {
    "height": (manifest(resolution=[0, 8]), "resolution must be"),
    "too large": (manifest(resolution=2**15 + 1), "images cannot be 3 x 32769"),
    "no channels": (manifest(channels=0), "images cannot be 0 x 8 x 8"),
    "encoding": (manifest(encoding="eps"), "and 'eps'"),
    "no split": (manifest(splits={}), r"its splits are \[\], and there are train, val, test"),
    "a split of its own": (manifest(splits={"train": split(), "mine": split("mine")}), "its splits are"),
    "counts": (manifest(splits={"train": split(counts=[1, 1, 1])}), "train counts 3 classes, and there are 2"),
    "counts of nothing": (manifest(class_names=None, splits={"train": split(counts=[3])}), "and there are 0"),
    "no shards": (manifest(splits={"train": Split(0, None, [])}), "train has 0 images, and its shards have others"),
    "sum": (manifest(splits={"train": replace(split(), count=2)}), "train has 2 images"),
    "place": (manifest(splits={"train": split("val")}), r"'val/shard-00000\.bin' is not the name of a shard"),
    "file": (manifest(splits={"train": Split(2, None, [replace(ONE, file="train/../shard-00000.bin")])}), "not the"),
    "raw bytes": (raw(3 * 8 * 8 + 1), "cannot have 1 images in 221 bytes"),
    "latents of a byte": (raw(4, resolution=1, channels=4, latents=LATENTS), "cannot have 1 images in 32 bytes"),
    "encoded latents": (manifest(latents=LATENTS), "its latents need encoding raw"),
    **{
        f"latents' {name}": (raw(8, resolution=1, channels=4, latents=replace(LATENTS, **{name: value})), "its latents")
        for name, value in {"factor": 0, "scale": 0.0, "sha256": "0" * 63 + "g"}.items()
    },
    "not a number": (raw(8, latents=replace(LATENTS, scale=float("nan"))), "scale must be finite"),
    "interpolation": (raw(8, latents=replace(LATENTS, autoencoder="${oc.env:HOME}")), "is an interpolation"),
    "missing": (raw(8, latents=replace(LATENTS, autoencoder="???")), "is an interpolation"),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_manifest_is_written_and_read(name: str, tmp_path: Path) -> None:
    ALLOWED[name].save(tmp_path)
    assert Manifest.load(tmp_path / "manifest.json") == ALLOWED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_damage(name: str, tmp_path: Path) -> None:
    wrong, message = REFUSED[name]
    wrong.save(tmp_path)
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged \(.*{message}.*; prepare the set again"):
        Manifest.load(tmp_path / "manifest.json")


def test_another_format_is_named(tmp_path: Path) -> None:
    manifest(format="diffusion-lit 9").save(tmp_path)
    with pytest.raises(ValueError, match=r"is of the format 'diffusion-lit 9', .* reads 'diffusion-lit 1'"):
        Manifest.load(tmp_path / "manifest.json")


def test_what_follows_from_a_manifest() -> None:
    sizes = {name: allowed.item_bytes for name, allowed in ALLOWED.items()}
    assert sizes == {**dict.fromkeys(ALLOWED), "raw": 24, "a pixel": 1, "latents": 32}
    whole = ALLOWED["all splits"]
    assert [shard.file for shard in whole.shards] == [
        f"{name}/shard-0000{i}.bin" for name in ("train", "val", "test") for i in range(2)
    ]
    assert len({each.shard_hash for each in (manifest(), manifest(splits={"val": split("val")}), whole)}) == 3
    assert manifest(source="elsewhere").shard_hash == manifest().shard_hash
