"""Features that are kept: never those of others, and whole."""

import io
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_lit.evaluation.extraction import describe
from diffusion_lit.evaluation.feature_folder import FeatureFolder, prune
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.feature import RandomVGG
from tests.evaluation.hasty import DRAWN, SEEN, evaluated, figures, pieces, train_hastily
from tests.evaluation.hasty import small_pieces as small_pieces
from tests.launch import PATIENCE, Forked, few_digits

FID = (*SEEN, *DRAWN, "metrics=[fid]", "num_samples=20")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_hastily(tmp_path_factory)


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(tmp_path_factory.mktemp("whole"), f"ckpt={run}", *FID)


def test_features_are_never_another_set_s(run: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole.parent / "cache", tmp_path / "cache")
    images = few_digits()["train"].fetch(list(range(288)))[0].permute(0, 2, 3, 1).numpy()
    other = images.copy()
    other[287, 7, 7, 0] ^= 1
    sets = {"same": images, "pixel": other, "fewer": images[:287]}
    for name, arrays in sets.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=arrays)
    changes = {name: [f"against={tmp_path / name}.npz"] for name in sets}
    changes |= {"split": ["against=val"], "extractor": ["feature.max_resolution=4"]}
    found = []
    for number, (name, options) in enumerate(changes.items(), 2):
        fid = figures(evaluated(tmp_path, f"ckpt={run}", *FID, *options))["fid"]
        assert len(list((tmp_path / "cache" / "features").glob("*/"))) == number, f"{name} has a folder of its own"
        found.append(fid)
    assert len(set(found)) == len(found)


def test_a_seed_s_features_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = SimpleNamespace(classifier=[nn.Linear(512, 1)])  # two times 134 M weights take seconds
    monkeypatch.setattr("diffusion_lit.feature.random_vgg.seeded_vgg16", lambda *_: network)
    images = StoredImages(few_digits()["train"])
    folders = [FeatureFolder(tmp_path, describe(images, RandomVGG(seed)), 288).path for seed in (0, 1, 0)]
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another"])
def test_damaged_features_are_computed_again(
    damage: str, run: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    good, buffer = pieces(tmp_path), io.BytesIO()
    np.savez(buffer, features=np.zeros((3, 64), np.float32))
    for folder in ("cache", "out"):
        file = next((tmp_path / folder).rglob("000001.npz"))
        data = file.read_bytes()
        flipped = data[:400] + bytes([data[400] ^ 1]) + data[401:]
        file.write_bytes({"cut": data[:-90], "flipped": flipped, "empty": b"", "another": buffer.getvalue()}[damage])
    with caplog.at_level(logging.WARNING):
        out = evaluated(tmp_path, f"ckpt={run}", *FID)
    assert sum("000001.npz is damaged" in record.getMessage() for record in caplog.records) == 2
    assert figures(out) == figures(whole) and pieces(tmp_path) == good


def test_features_used_longest_ago_make_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [FeatureFolder(tmp_path, {"images": str(i)}, 8) for i in range(4)]
    for i, folder in enumerate(folders):
        with folder.begin():
            folder.write(0, torch.full((8, 128), float(i)))
        os.utime(folder.path / "features.json", (i, i))
    (tmp_path / "somebody's notes").mkdir()
    folders[1].begin().release()  # it is used once more
    with folders[0].begin(), caplog.at_level(logging.INFO):
        os.utime(folders[0].path / "features.json", (0, 0))
        prune(tmp_path, 3 * 5000)
        assert [folder.path.exists() for folder in folders] == [True, True, False, True]
        assert f"removed {folders[2].path}: " in caplog.text
        prune(tmp_path, 0)
        assert [folder.path.exists() for folder in folders] == [True, False, False, False], "which is at work"
    assert (folders[0].features() == 0).all() and (tmp_path / "somebody's notes").exists()  # type: ignore[union-attr]
    with folders[1].begin():
        folders[1].write(0, torch.ones(8, 128))
    prune(tmp_path / "nowhere", 0)


def test_a_bound_of_the_cache(run: Path, whole: Path, tmp_path: Path) -> None:
    out = evaluated(tmp_path, f"ckpt={run}", *FID, "cache_gib=0")
    assert figures(out) == figures(whole) and not pieces(tmp_path / "cache") and pieces(out) == pieces(whole)


def test_the_first_process_reads_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checksum and classes are what the others have, who read nothing."""
    classes = torch.arange(3)
    monkeypatch.setattr("diffusion_lit.evaluation.image_set.decided", lambda make: ("its checksum", classes))
    images = StoredImages(None)  # type: ignore[arg-type]
    assert images.content == "its checksum" and images.labels([2, 0]).tolist() == [2, 0]  # type: ignore[union-attr]


def test_reading_a_large_set_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []

    @contextmanager
    def progress(what: str, total: float, unit: str, delay: float) -> Iterator[SimpleNamespace]:
        shown.append(-total)
        yield SimpleNamespace(advance=shown.append)

    monkeypatch.setattr("diffusion_lit.evaluation.image_set.progress", progress)
    assert len(StoredImages(few_digits()["train"]).content) == 64 and shown == [-288, 250, 38]


def test_two_commands_compute_features_once(tmp_path: Path) -> None:
    """The second waits for the first, and removes nothing of what that is writing."""
    folder = FeatureFolder(tmp_path, {"images": "x"}, 3)
    with folder.begin():
        partial = folder.path / ".000000.npz.1.partial"
        partial.touch()
        command = [sys.executable, "-m", "tests.evaluation.begin", str(tmp_path)]
        with (tmp_path / "said").open("w") as file:
            process = Forked(command, tmp_path, {**os.environ}, file.fileno(), file.fileno())
            process.until(lambda: "waiting for them" in (tmp_path / "said").read_text())
            assert process.poll() is None and partial.exists()
    assert process.wait(PATIENCE) == 0 and not partial.exists()
