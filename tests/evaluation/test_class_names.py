"""Classes are the same where their names are, whatever their order."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from PIL import Image

from diffusion_lit.evaluation.class_names import ClassNames
from diffusion_lit.evaluation.image_files import open_images
from tests.evaluation.hasty import evaluated, figures, result
from tests.launch import few_digits

NAMES = {0: "zebra", 1: "ant", 2: "moth"}


def folder_of(path: Path, names: dict[int, str]) -> Path:
    """Digits 0 to 2, in a folder for each, of these names."""
    images, labels = few_digits()["train"].fetch(list(range(288)))
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):  # type: ignore[union-attr]
        if label in names:
            place = path / names[label] / f"{i:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(place)
    return path


def labels_of(path: Path, option: str, classes: ClassNames) -> dict[str, set[int]]:
    """The numbers of the images in each class folder."""
    images = open_images(path, option, classes)
    numbers = images.labels(range(len(images)))
    assert numbers is not None
    found: dict[str, set[int]] = {}
    for (split, i), number in zip(images.images.places, numbers.tolist(), strict=True):  # type: ignore[attr-defined]
        found.setdefault(images.images.source.splits[split][i].name.split("/")[0], set()).add(number)  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my images, out=1")
    folder_of(folder / "real", NAMES)
    copytree(folder / "real" / "ant", folder / "fewer" / "ant")
    copytree(folder / "real" / "zebra", folder / "fewer" / "zebra")
    copytree(folder / "real" / "moth", folder / "other" / "moth")
    copytree(folder / "real" / "ant", folder / "other" / "bee")
    return folder


def test_numbers_are_the_model_s(folders: Path) -> None:
    classes = ClassNames(["zebra", "moth", "ant"])
    assert labels_of(folders / "real", "against", classes) == {"zebra": {0}, "moth": {1}, "ant": {2}}
    assert classes.notes() == []
    assert labels_of(folders / "other", "samples", classes) == {"moth": {1}, "bee": {3}}
    assert classes.notes() == [
        "classes of the model that the generated images lack: zebra, ant",
        "classes of the generated images that the model lacks: bee",
    ]


def test_without_a_model_they_are_the_first_folder_s(folders: Path) -> None:
    classes = ClassNames()
    assert labels_of(folders / "real", "against", classes) == {"ant": {0}, "moth": {1}, "zebra": {2}}
    assert labels_of(folders / "fewer", "samples", classes) == {"ant": {0}, "zebra": {2}}, "and not 0 and 1"
    assert classes.notes() == ["classes of the real images that the generated images lack: moth"]


NUMBERED = {
    "numbers": (None, ["0", "2", "5"], False, [0, 2, 5]),
    "numbers that are names": (["0", "2", "5"], ["2", "5"], False, [1, 2]),
    "numbers that are not": (["0", "2", "5"], ["1", "2"], False, [1, 2]),
    "numbers by their format": (["0", "2", "5"], ["0", "2"], True, [0, 2]),
}


@pytest.mark.parametrize("model, own, are_numbers, expected", NUMBERED.values(), ids=NUMBERED.keys())
def test_numbers_and_names(model: list[str] | None, own: list[str], are_numbers: bool, expected: list[int]) -> None:
    assert ClassNames(model).numbers(own, "real", are_numbers) == expected


def test_a_dataset_json_has_numbers(folders: Path, tmp_path: Path) -> None:
    copytree(folders / "real" / "ant", tmp_path / "edm")
    names = sorted(file.name for file in (tmp_path / "edm").iterdir())
    (tmp_path / "edm" / "dataset.json").write_text(json.dumps({"labels": [[name, 2] for name in names]}))
    labels = open_images(tmp_path / "edm", "samples", ClassNames(["0", "2", "5"])).every_label
    assert labels is not None and labels.unique().tolist() == [2]


def test_images_that_are_changed_in_the_meantime_are_named(folders: Path, tmp_path: Path) -> None:
    """Their features would be kept as those of the images that they were."""
    copytree(folders / "fewer", tmp_path / "fewer")
    images = open_images(tmp_path / "fewer", "against", ClassNames())
    first, second = sorted((tmp_path / "fewer").rglob("*.png"))[:2]
    first.write_bytes(first.read_bytes() + b"x")
    second.unlink()
    for number, file in enumerate((first, second)):
        with pytest.raises(ValueError, match=f"{file.name} was changed or removed in the meantime"):
            next(images.batches([number], 1))


def test_figures_of_permuted_folders(folders: Path, tmp_path: Path) -> None:
    """Two thirds of the classes, and in another place: each is compared with its own."""
    common = ("feature=pixels", "device=cpu", f"against={folders / 'real'}")
    out = evaluated(tmp_path, *common, "metrics=[fid_by_class,class_histogram]", f"samples={folders / 'real'}")
    found = figures(out)
    assert max(abs(found[f"fid_class_{c}"]) for c in range(3)) < 1e-6 and found["class_distance"] == 0
    assert "of classes, 0 is ant, 1 is moth, 2 is zebra" in result(out)["notes"]
    floor, sizes = result(out)["floor"], [len(list((folders / "real" / name).iterdir())) for name in ("ant", "moth")]
    counts = [floor[f"fid_class_{c}"]["count"] for c in range(3)]
    assert sum(counts) == floor["fid_by_class"]["count"] and all(
        0 < n < size for n, size in zip(counts, sizes, strict=False)
    )
    out = evaluated(tmp_path, *common, "metrics=[class_histogram]", f"samples={folders / 'fewer'}")
    sizes = np.array([len(list((folders / "real" / name).iterdir())) for name in ("ant", "moth", "zebra")])
    p, q = sizes * [1, 0, 1] / (sizes[0] + sizes[2]), sizes / sizes.sum()
    assert figures(out)["class_distance"] == pytest.approx(np.abs(p - q).sum() / 2)
    assert "the generated images lack: moth" in (out / "evaluation.md").read_text()
    with pytest.raises(ValueError, match=r"fid_by_class .* no generated ones, of: moth\. Add or rename classes"):
        evaluated(tmp_path, *common, "metrics=[fid_by_class]", f"samples={folders / 'fewer'}")
