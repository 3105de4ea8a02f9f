"""What evaluate refuses before anything is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_lit import evaluating
from tests.evaluation.hasty import DRAWN, FEW, SEEN, damaged, evaluated, train_hastily
from tests.launch import run_forked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_hastily(tmp_path_factory)


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of all kinds, and a link to the run."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "run").symlink_to(run)
    arrays = {
        "small": {"arr_0": np.zeros((70, 8, 8, 1), np.uint8)},
        "large": {"arr_0": np.zeros((70, 16, 16, 1), np.uint8)},
        "colour": {"arr_0": np.zeros((70, 8, 8, 3), np.uint8)},
        "floats": {"arr_0": np.zeros((70, 8, 8, 3))},
        "objects": {"arr_0": np.array([{}], object)},
        "other": {"x": np.zeros(3)},
    }
    for name, named in arrays.items():
        np.savez(folder / f"{name}.npz", **named)  # type: ignore[arg-type]
    (folder / "cut.npz").write_bytes((folder / "small.npz").read_bytes()[:-100])
    with (folder / "bare.npz").open("wb") as file:
        np.save(file, arrays["small"]["arr_0"])
    (folder / "again.npz").write_bytes((folder / "small.npz").read_bytes())
    (folder / "empty").mkdir()
    (folder / "coloured").mkdir()
    for mode in ("L", "LA", "RGB"):
        Image.new(mode, (8, 8)).save(folder / "coloured" / f"{mode}.png")
    (folder / "mixed").mkdir()
    Image.new("L", (8, 8)).save(folder / "mixed" / "a.png")
    for name in "bc":
        Image.new("RGB", (9, 9)).save(folder / "mixed" / f"{name}.png")
    for name in ("zero", "one"):
        (folder / "named" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8)).save(folder / "named" / name / f"{i}.png")
    np.savez(folder / "eleventh.npz", arr_0=arrays["small"]["arr_0"], arr_1=np.full(70, 10))
    np.savez(folder / "few.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.savez(folder / "statistics.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez(folder / "one.npz", arr_0=arrays["small"]["arr_0"][:1])
    (folder / "taken").touch()
    (folder / "there" / "evaluation.md").mkdir(parents=True)
    return folder


MODEL = ("ckpt=run", *SEEN, *FEW, *DRAWN)
IMAGES = ("samples=small.npz", *SEEN)
REAL = (*IMAGES, *FEW, "against=small.npz")
BOUND = ("ckpt=run", "metrics=[bound]", "device=cpu")
WRONG = {
    "nothing to evaluate": (SEEN, "ckpt=RUN_OR_FILE of a model, or samples=PATH"),
    "no metric": (("ckpt=run", "metrics=[]"), "metrics=[fid,kid]"),
    "missing weights": (("ckpt=run", "feature=inception", "feature.weights=nowhere.pth"), "nowhere.pth does not exist"),
    "too few images": ((*MODEL, "metrics.kid.subset_size=61"), "metrics.kid.subset_size lower, or leave it out"),
    "too few of a class": ((*MODEL[:3], "metrics=[fid_by_class]", "num_samples=11"), "take more images"),
    "no classes": ((*IMAGES, "against=small.npz", "metrics=[class_histogram]"), "the generated images have no labels"),
    "classes asked for": (
        (*MODEL[:3], "metrics=[class_histogram]", *DRAWN),
        "was asked for, and not what its images show",
    ),
    "mixed sizes": ((*REAL, "samples=mixed"), "a.png is 8 x 8 grey, b.png is 9 x 9 in colour"),
    "mixed colours": (
        (*REAL, "samples=coloured"),
        "is 8 x 8 in colour. Figures are of images of one size and colour; channels=3",
    ),
    "empty folder": ((*REAL, "samples=empty"), "no images in empty"),
    "other resolution": ((*MODEL, "against=large.npz"), "1 x 8 x 8 and the real images 1 x 16 x 16"),
    "other channels": (
        (*MODEL, "against=colour.npz"),
        "height x width): make them alike first, since how they are scaled decides the figures; channels=1 reads",
    ),
    "training images twice": (
        (*MODEL[:3], *DRAWN, "metrics=[authenticity]"),
        "authenticity needs images that the model was not trained on, and against=train is those that it was: take "
        "against=test or against=val",
    ),
    "nobody's training images": (
        (*IMAGES, "against=large.npz", "metrics=[authenticity]"),
        "training=PATH, or ckpt=RUN_OR_FILE",
    ),
    "training images by another name": (
        (*IMAGES, "against=small.npz", "training=again.npz", "metrics=[nearest_neighbour]"),
        "the real images are the training images",
    ),
    "ignored training images": ((*MODEL, "training=small.npz"), "training=small.npz would be ignored"),
    "nobody's split": ((*IMAGES, *FEW), "against=PATH of real images, or ckpt=RUN_OR_FILE"),
    "settings of images that there are": ((*REAL, "steps=5", "sampler.eta=1"), "steps, sampler.eta would be ignored"),
    "a model for nothing": ((*REAL, "ckpt=run"), "ckpt=run would be ignored"),
    "real images for nothing": ((*IMAGES, "metrics=[vendi]", "against=nowhere"), "against=nowhere would be ignored"),
    "a split for nothing": ((*IMAGES, "metrics=[vendi]", "against=test"), "against=test would be ignored"),
    "features for nothing": (
        (*BOUND, "against=test", "feature=pixels", "feature.max_resolution=4"),
        "feature=pixels, feature.max_resolution=4 would be ignored: none of the metrics takes its features from it",
    ),
    "no new images": (
        (*MODEL[:3], *DRAWN, "metrics=[authenticity]", "against=nowhere"),
        "against=nowhere does not exist",
    ),
    "real images beside statistics": (
        (*MODEL[:3], *DRAWN, "metrics=[fid]", "metrics.fid.reference=few.npz", "against=small.npz"),
        "against=small.npz would be ignored: none of the metrics reads real images",
    ),
    "channels of a model's data": ((*MODEL, "channels=4"), "channels=4 would be ignored"),
    "channels of arrays": ((*REAL, "channels=4"), "channels=4 would be ignored: no image files are read"),
    "an autoencoder for nothing": (
        (*REAL, "autoencoder=empty"),
        "autoencoder=empty would be ignored: no model is read",
    ),
    "pairs of nothing": ((*MODEL, "pairs=3"), "pairs=3 would be ignored: none of the metrics reads training images"),
    "a root for nothing": ((*MODEL, "against=small.npz", "data_root=empty"), "data_root=empty would be ignored"),
    "likelihoods of images": ((IMAGES[0], "metrics=[bound]"), "bound are of a model"),
    "images that nobody looks at": (
        ("ckpt=run", "metrics=[bound]", "device=cpu", "steps=5", "sampler.eta=1"),
        "no images are drawn: steps, sampler.eta would be ignored",
    ),
    "statistics of other features": (
        (*MODEL[:3], *DRAWN, "metrics=[fid]", "metrics.fid.reference=statistics.npz"),
        "the images have 64 features and the reference has 2048",
    ),
    "a likelihood of one image": ((*BOUND, "against=one.npz"), "bound takes at least 2 real images, and there are 1"),
    "likelihoods of others' classes": (
        (*BOUND, "against=named"),
        "images of the model's 10 classes, and there are real ones of others: one, zero. Rename",
    ),
    "likelihoods of an eleventh class": ((*BOUND, "against=eleventh.npz"), "real ones of others: 10. Rename"),
    "a classifier of nobody's classes": (
        ("samples=small.npz", "against=small.npz", "feature=classifier", "metrics=[fid]"),
        "choose another feature, or ckpt=RUN_OR_FILE",
    ),
    "no arr_0": ((*REAL, "samples=other.npz"), "has no arr_0 [N, H, W, C] in it, but x"),
    "truncated": ((*MODEL, "against=cut.npz"), "against=cut.npz cannot be read"),
    "an array alone": ((*MODEL, "against=bare.npz"), "against=bare.npz cannot be read"),
    "objects": ((*MODEL, "against=objects.npz"), "against=objects.npz cannot be read"),
    "floats": ((*MODEL, "against=floats.npz"), "arr_0 must be uint8"),
    "no such images": ((*MODEL, "against=nowhere"), "a folder of images, a .zip or .tar of them, an .npz"),
    "a file for a folder": ((*MODEL, "out=taken"), "taken cannot be written to"),
    "a folder for a file": ((*MODEL, "out=there"), "evaluation.md is a folder"),
    "no steps": ((*MODEL, "steps=[]"), "steps must be one value, or a list of several that differ"),
    "a seed twice": ((*MODEL, "seed=[1,1]"), "seed must be one value"),
    "steps twice": ((*MODEL, "steps=5"), "steps=5 and sampler.num_steps say two things"),
    "not a number": ((*MODEL, "guidance=much"), "guidance must be a number"),
    "no bound": ((*MODEL, "cache_gib=much"), "cache_gib must be a number of at least 0"),
    "half a seed": ((*MODEL, "seed=0.5"), "seed must be a whole number, got 0.5"),
    "no batch": ((*MODEL, "batch_size=0"), "batch_size must be a whole number of at least 1"),
}


@pytest.mark.parametrize("args, words", WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_found_before_anything_is_drawn(
    args: tuple[str, ...], words: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(evaluating, "extract", None)
    monkeypatch.setattr(evaluating, "estimate", None)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        evaluated(tmp_path, *args)
    assert words in str(caught.value) and str(caught.value).count("\n") < 5
    assert not list(tmp_path.rglob("*.npz")) and not (tmp_path / "out").exists()


COMMANDS = {
    "metric": (["metrics=[fidd]"], "precision_recall"),
    "place": ([*MODEL, "out=taken"], "(out=DIR"),
    "cache": ([*MODEL, "cache=taken"], "cache=DIR"),
    "name": (["samples=no such, images=1", "against=small.npz"], "samples=no such, images=1 does not exist"),
}


@pytest.mark.parametrize("args, words", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_command_reports_a_mistake_on_one_screen(args: list[str], words: str, folder: Path, tmp_path: Path) -> None:
    place = () if "out=taken" in args else (f"out={tmp_path}",)
    done = run_forked("evaluate", *args, *(() if args[0].startswith("metrics") else SEEN), *place, cwd=folder)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 24


def test_an_image_that_is_not_a_number_is_named(run: Path, tmp_path: Path) -> None:
    damaged(run, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"image 0 is not finite.*weights=raw, or an earlier checkpoint"):
        evaluated(tmp_path, *MODEL, f"ckpt={tmp_path / 'x.ckpt'}")
    assert not list((tmp_path / "out").rglob("*.npz"))
    evaluated(tmp_path, *MODEL, f"ckpt={tmp_path / 'x.ckpt'}", "weights=raw")
