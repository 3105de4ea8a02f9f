"""Rectangles, and images that are neither grey nor colour, all the way: files, training, pictures, samples, figures."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

import diffusion_lit as dl
from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.data import ImageDataModule, MemmapData
from diffusion_lit.drawn.request import check_channels
from diffusion_lit.feature import Pixels
from diffusion_lit.logger.csv import read_table
from diffusion_lit.picture.image import file_kind, read_image
from diffusion_lit.preparation.settings import reading_of
from diffusion_lit.prepared.manifest import Manifest
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading
from tests.evaluation.hasty import evaluated, figures
from tests.launch import config, train_in
from tests.pictures import prepare, settings, stored

SPLITS = {"train": 8, "val": 3, "test": 3}
RUN = (
    *("trainer.max_steps=2", "trainer.val_check_interval=2", "data.batch_size=4", "data.num_workers=0"),
    *("callback.fid.num_samples=3", "callback.sample_grid.rows=2", "callback.sample_grid.columns=2"),
    *("callback.sample_grid.strips=1", "model.channel_multipliers=[1,2]", "sampler.num_steps=2", "logger=csv"),
)


class Shape(NamedTuple):
    channels: int
    height: int
    width: int
    prepared: bool
    augmentation: str
    seen: int
    """Channels of its pictures."""
    against: str
    """What its samples are compared with."""

    @property
    def kind(self) -> str:
        return file_kind(self.channels)


SHAPES = {
    "sprites": Shape(4, 8, 12, False, "edm", 3, "files"),
    "grey and alpha": Shape(2, 12, 8, True, "flip", 1, "npz"),
    "bands": Shape(5, 8, 12, True, "none", 3, "files"),
}


def numbers(i: int, channels: int = 4) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (16, 24, channels), dtype=np.uint8)


def write(root: Path, channels: int) -> Path:
    """RGBA files, or arrays where these have too few channels, in splits."""
    for split, count in SPLITS.items():
        (root / split).mkdir(parents=True)
        for i in range(count):
            if channels > 4:
                np.save(root / split / f"{i}.npy", numbers(i, channels))
            else:
                Image.fromarray(numbers(i)).save(root / split / f"{i}.png")
    return root


class Trained(NamedTuple):
    shape: Shape
    folder: Path
    run: Path
    said: str
    out: Path
    """Six samples in every format."""


@pytest.fixture(scope="module", params=SHAPES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    shape, folder = SHAPES[request.param], tmp_path_factory.mktemp("shape")
    images, resolution = write(folder / "images", shape.channels), f"[{shape.height},{shape.width}]"
    data = (
        "data=image_folder",
        f"data.root={images}",
        f"data.resolution={resolution}",
        f"data.channels={shape.channels}",
    )
    if shape.prepared:
        prepare(images, folder / "set", channels=shape.channels, resolution=[shape.height, shape.width])
        data = ("data=memmap", f"data.root={folder / 'set'}")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr(
            logging.getLogger("diffusion_lit.run.start_table"), "info", lambda text, *args: lines.append(text % args)
        )
        assert train_in(folder / "run", *data, *RUN, f"augmentation={shape.augmentation}") is not None
    formats, out = f"[grid,{shape.kind},npz,shards{',zip' if shape.kind == 'png' else ''}]", folder / "out"
    dl.sample([f"ckpt={folder / 'run'}", "num_samples=6", "sampler.num_steps=2", f"format={formats}", f"out={out}"])
    return Trained(shape, folder, folder / "run", "\n".join(lines), out)


def test_training_says_and_draws_what_it_sees(trained: Trained) -> None:
    (c, h, w, *_), run = trained.shape, trained.run
    assert f"{h} x {w} x {c}" in trained.said
    assert ("over a checkerboard" if c < 5 else "the first 3 of 5") in " ".join(trained.said.split())
    [row] = [row for row in read_table(run / "metrics.csv") if "fid/pixels_3" in row]
    assert np.isfinite(row["fid/pixels_3"])
    for picture in ("samples", "denoising"):
        shown = read_image(run / picture / "step_0000002.png")
        assert len(shown) == trained.shape.seen
    scale = 6  # the sides of a square of as many pixels are 9, which 48 are asked of
    assert read_image(run / "samples" / "step_0000002.png").shape[1:] == (
        2 * (h * scale + 2) + 2,
        2 * (w * scale + 2) + 2,
    )


def test_samples_are_written_without_loss_and_read_again(trained: Trained) -> None:
    """By each format, and by a data module from the shards."""
    shape, run, out = trained.shape, trained.run, trained.out
    model = dl.load(run)
    assert f"{shape.channels} x {shape.height} x {shape.width}" in repr(model)
    images = model.sample(6, num_steps=2)
    assert images.shape == (6, shape.height, shape.width, shape.channels)
    with np.load(out / "samples.npz") as file:
        assert np.array_equal(file["arr_0"], images)
    assert torch.equal(read_image(out / shape.kind / f"000003.{shape.kind}").permute(1, 2, 0), images[3])
    assert len(read_image(out / "grid.png")) == shape.seen
    data = MemmapData(str(out / "shards"))
    data.setup()
    assert data.sides == (shape.height, shape.width) and data.channels == shape.channels
    again = torch.cat([data.splits[split].fetch(list(range(len(data.splits[split]))))[0] for split in data.splits])
    assert sorted(map(bytes, again.permute(0, 2, 3, 1).numpy())) == sorted(map(bytes, images.numpy()))
    with pytest.raises(ValueError, match=f" and the model draws {shape.channels}: use format="):
        check_channels(["npy", "png"], shape.channels)


def test_figures_are_of_all_channels(trained: Trained) -> None:
    """Files of its own samples, which are read with as many channels by themselves, are the model's own images."""
    shape, folder = trained.shape, trained.folder
    files = trained.out / (shape.kind if shape.against == "files" else "samples.npz")
    common = ("feature=pixels", "metrics=[fid]", "sampler.num_steps=2", "device=cpu", "num_samples=6", "floor=false")
    same = evaluated(folder, f"ckpt={trained.run}", f"against={files}", *common)
    assert figures(same)["fid"] == pytest.approx(0, abs=1e-8)
    if shape.against == "files":
        own = evaluated(
            folder / "own", f"samples={files}", f"against={files}", f"channels={shape.channels}", *common[:2]
        )
        assert figures(own)["fid"] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_a_prepared_rectangle_is_what_reading_gives(channels: int, encoding: str, tmp_path: Path) -> None:
    if channels == 5 and encoding == "png":
        with pytest.raises(ValueError, match="encoding=png does not store channels=5; use encoding=raw"):
            reading_of(settings(source="x", channels=5, encoding="png"))
        return
    images = write(tmp_path / "images", channels)
    manifest = prepare(images, tmp_path / "set", encoding, channels=channels, resolution=[6, 10], fit="resize")
    assert manifest == Manifest.load(tmp_path / "set" / "manifest.json")
    assert manifest.resolution == [6, 10] and manifest.shape == (channels, 6, 10)
    source, reading = FolderSource(images, 0.2), Reading([6, 10], channels, "resize", "lanczos")
    expected = np.stack([source.read("val", i, reading).numpy() for i in range(SPLITS["val"])])
    assert np.array_equal(stored(tmp_path / "set", "val")[0], expected)


def test_a_square_is_recorded_as_ever(tmp_path: Path) -> None:
    """So that sets, and plans of sets, from before rectangles are the same."""
    images = write(tmp_path / "images", 3)
    one = prepare(images, tmp_path / "one", resolution=6)
    cfg = settings(source=str(images), out=str(tmp_path / "two"), resolution=[6, 6])
    reading, encoding = reading_of(cfg)
    assert (one.resolution, reading.resolution, encoding) == (6, 6, "raw")
    assert reading_of(settings(source="x", resolution=[48, 80]))[1] == "png"


class Squares(torch.nn.Module):
    """A network of somebody's, which takes one number."""

    def __init__(self, resolution: int, image_channels: int, num_classes: int | None) -> None:
        super().__init__()


def test_the_model_fits_the_data_s_shape_or_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "images", 3)
    cfg = config(tmp_path, "data=image_folder", f"data.root={root}", "data.resolution=[8,12]")
    data: ImageDataModule = instantiate(cfg.data)
    fit_model_to_data(cfg, data)
    assert cfg.model.resolution == [8, 12] and instantiate(cfg.model).image_shape == (3, 8, 12)
    cfg.model.resolution = [12, 8]
    with pytest.raises(ValueError, match=r"model\.resolution=\[12, 8\] does not fit the data, whose .* is \[8, 12\]"):
        fit_model_to_data(cfg, data)
    cfg.model = {
        "_target_": f"{__name__}.Squares",
        **dict.fromkeys(("resolution", "image_channels", "num_classes"), "auto"),
    }
    with pytest.raises(ValueError, match=r"Squares draws squares, and the data's images are \[8, 12\]: set data\."):
        fit_model_to_data(cfg, data)
    square = config(
        tmp_path, "data=image_folder", f"data.root={root}", "data.resolution=[8,8]", "model.resolution=[8,8]"
    )
    fit_model_to_data(square, instantiate(square.data))
    assert instantiate(square.data).resolution == 8


def test_pixels_compare_any_number_of_channels() -> None:
    extractor = Pixels(4)
    extractor.check(7, 3, 9)
    assert extractor(torch.zeros(2, 7, 3, 9)).shape == (2, extractor.num_features) == (2, 84)
