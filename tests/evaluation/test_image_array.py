"""Images of an .npz are read from it in any order, a few at a time, and are those that numpy reads."""

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffusion_lit.evaluation.image_array import NpzImages

IMAGES = np.random.default_rng(0).integers(0, 256, (500, 4, 4, 3), np.uint8)
LABELS = np.arange(500, dtype=np.int32) % 7


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_are_those_that_numpy_reads(save: object, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save(path, arr_1=LABELS, arr_0=IMAGES)  # type: ignore[operator]
    stored = NpzImages(path, "samples=x.npz")
    assert len(stored) == 500
    for indices in (list(range(500)), [499], [3, 3, 0], [17, 40, 2], list(range(5, 30, 4))):
        images, labels = stored.fetch(indices)
        assert labels is not None and labels.tolist() == LABELS[indices].tolist()
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), IMAGES[indices])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_file(save: object, tmp_path: Path) -> None:
    """30 MB, of which 250 images of 3 KB are held."""
    save(tmp_path / "x.npz", arr_0=np.zeros((10_000, 32, 32, 3), np.uint8))  # type: ignore[operator]
    tracemalloc.start()
    stored = NpzImages(tmp_path / "x.npz", "samples=x.npz")
    for first in range(0, len(stored), 250):
        stored.fetch(range(first, first + 250))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_a_file_that_is_replaced_in_the_meantime_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", arr_0=IMAGES)
    stored = NpzImages(tmp_path / "x.npz", "samples=x.npz")
    stored.fetch([0])
    np.savez(tmp_path / "x.npz", arr_0=IMAGES[:7])
    with pytest.raises(ValueError, match=r"samples=x\.npz cannot be read: it was changed"):
        stored.fetch([1])


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    """Also in the middle of the images, where only the checksum tells."""
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=IMAGES, arr_1=LABELS)
    data = bytearray(path.read_bytes())
    data[data.index(IMAGES[450].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"against=x\.npz cannot be read: Bad CRC-32"):
        NpzImages(path, "against=x.npz").fetch(range(len(IMAGES)))


WRONG = {
    "labels of others": ({"arr_0": IMAGES, "arr_1": LABELS[:3]}, r"arr_1 must be whole numbers \[500\]"),
    "halves": ({"arr_0": IMAGES, "arr_1": LABELS / 2}, "arr_1 must be whole numbers"),
    "statistics": ({"mu": np.zeros(3), "sigma": np.eye(3)}, "no arr_0.*mu, sigma: .* metrics.fid.reference="),
    "by column": ({"arr_0": np.asfortranarray(IMAGES)}, "ascontiguousarray"),
    "no images": ({"arr_0": IMAGES[:0]}, r"uint8 \[N, H, W, C\]"),
    "objects": ({"arr_0": IMAGES, "arr_1": np.array([{}] * 500, object)}, "arr_1 holds Python objects"),
}


@pytest.mark.parametrize("arrays, words", WRONG.values(), ids=WRONG.keys())
def test_other_arrays_are_refused(arrays: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        NpzImages(tmp_path / "x.npz", "samples=x.npz")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    """Before room is made for what it promises."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("arr_0.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (9, 2**20, 2**20, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(1000))
    with pytest.raises(ValueError, match="does not hold"):
        NpzImages(tmp_path / "x.npz", "samples=x.npz")
