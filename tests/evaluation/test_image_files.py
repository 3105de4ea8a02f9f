"""Files that are measured as they are: upright, of one size, and never scaled or cropped."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lit.drawn.archive import save_shards
from diffusion_lit.evaluation.class_names import ClassNames
from diffusion_lit.evaluation.image_files import open_images
from tests.pictures import pixels, png, write_folder


def rotated_png(number: int) -> bytes:
    """24 x 16 pixels as stored, 16 x 24 once upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels(number, (24, 16))).save(file, "png", exif=exif)
    return file.getvalue()


def test_rotated_files_are_taken_whole(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"{i}.png": rotated_png(i) for i in range(4)})
    images, _ = open_images(root, "samples", ClassNames()).images.fetch(range(4))
    expected = np.stack([np.rot90(pixels(i, (24, 16)), -1).transpose(2, 0, 1) for i in range(4)])
    assert np.array_equal(images, expected)


def test_rotated_files_beside_upright_ones_are_of_another_size(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"0.png": rotated_png(0)} | {f"{i}.png": png(i, (24, 16)) for i in range(1, 4)})
    with pytest.raises(ValueError, match=r"0\.png is 16 x 24 in colour, 1\.png is 24 x 16 in colour"):
        open_images(root, "samples", ClassNames())


def test_statistics_beside_images_are_pointed_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in ADM's references, whose FIDs are against these."""
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "adm.npz", arr_0=images, mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "bare.npz", arr_0=images)
    for option, name in (("against", "bare"), ("samples", "adm"), ("against", "adm")):
        assert not caplog.messages
        open_images(tmp_path / f"{name}.npz", option, ClassNames())
    assert f"metrics.fid.reference={tmp_path / 'adm.npz'}" in caplog.text


def test_a_png_that_says_behind_its_pixels_how_it_lies_is_not_cropped(tmp_path: Path) -> None:
    data = rotated_png(0)
    at, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    late = data[:at] + data[end:-12] + data[at:end] + data[-12:]
    root = write_folder(tmp_path, dict.fromkeys(("0.png", "1.png", "2.png"), late))
    with pytest.raises(ValueError, match="upright it is 16 x 24, where 24 x 16 are expected"):
        open_images(root, "samples", ClassNames()).images.fetch([0])


def test_a_prepared_set_is_read_whole(tmp_path: Path) -> None:
    """All of its splits, the classes by their names; without some images' classes too."""
    root = write_folder(tmp_path / "files", {f"{i:02}.png": png(i, (8, 8)) for i in range(40)})
    own = [i % 3 - 1 for i in range(40)]
    save_shards(sorted(root.iterdir()), own, ["cat", "dog"], tmp_path / "a set")
    known = ClassNames(["bird", "dog", "cat"])
    images = open_images(tmp_path / "a set", "samples", known)
    found, labels = images.images.fetch(range(len(images)))
    expected = {pixels(i, (8, 8)).transpose(2, 0, 1).tobytes(): {-1: -1, 0: 2, 1: 1}[own[i]] for i in range(40)}
    assert {image.numpy().tobytes(): int(label) for image, label in zip(found, labels, strict=True)} == expected
    some, of_some = images.images.fetch([39, 0, 17])
    assert torch.equal(some, found[[39, 0, 17]]) and torch.equal(of_some, labels[[39, 0, 17]])
    [shard, *_] = (tmp_path / "a set").glob("*/shard-*.bin")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"shard .* is damaged"):
        open_images(tmp_path / "a set", "samples", known)


def test_a_folder_of_sample_s_is_its_images_without_their_grid(tmp_path: Path) -> None:
    drawn = {f"png/{i}.png": png(i, (8, 8)) for i in range(4)}
    write_folder(tmp_path / "drawn", {"grid.png": png(9, (40, 40)), **drawn})
    with pytest.raises(ValueError, match=r"outside any, such as grid\.png"):
        open_images(tmp_path / "drawn", "samples", ClassNames())
    (tmp_path / "drawn" / "sample.json").write_text("{}")
    assert len(open_images(tmp_path / "drawn", "samples", ClassNames())) == 4
