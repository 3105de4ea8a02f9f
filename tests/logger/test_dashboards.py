"""What a run logs: its names, values and steps, alike in every logger; pictures; and the page of its figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from diffusion_lit.callback import SampleGrid
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.data import DigitsData
from diffusion_lit.logger.csv import read_table
from diffusion_lit.logger.dashboard import draw_dashboard, panels_of
from diffusion_lit.module import DiffusionModule
from diffusion_lit.noise_level import LEVELS
from tests.figures import scalars, table
from tests.launch import TINY, train_in

LOSSES = {"loss", *(f"loss_{level}" for level in LEVELS)}
EVERY_POINT = {
    *(f"train/{name}" for name in LOSSES | {"grad_norm", "clipped", "not_finite", "lr", "update_ratio"}),
    *(f"throughput/{name}" for name in ("images_per_s", "step_seconds", "data_wait")),
    "memory/peak_gib",
}
EVERY_VALIDATION = {*(f"val/{name}" for name in LOSSES), "val/loss_raw"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps with a point at the fourth, validations at the third and the sixth, and all options."""
    folder = tmp_path_factory.mktemp("run")
    options = (
        *("logger=[csv,tensorboard]", "trainer.max_steps=6", "trainer.log_every_n_steps=4", "optimizer.lr=0.05"),
        *("callback.update_ratio.enabled=true", "callback.sample_grid.raw=true", "callback.sample_grid.strips=2"),
    )
    train_in(folder, *options)
    return folder


def test_a_figure_of_the_model_after_n_steps_stands_at_n(run: Path) -> None:
    """One row a step, whoever logged what of it; points of what was asked for, and nothing else."""
    figures = table(run)
    steps = {name: list(column) for name, column in figures.items()}
    assert {name for name in steps if steps[name] == [4]} == EVERY_POINT
    assert {name for name in steps if steps[name] == [3, 6]} == EVERY_VALIDATION | {"fid/pixels_21"}
    assert steps["size/batch"] == [0]
    assert figures["images_seen"] == {n: 60 * n for n in (0, 3, 4, 6)}
    assert figures["epoch"] == {n: n / 4 for n in (0, 3, 4, 6)}  # four steps an epoch
    assert [row["step"] for row in read_table(run / "metrics.csv")] == [0, 3, 4, 6]
    assert {name: column[0] for name, column in figures.items() if name.startswith("size/")} == {
        "size/parameters": sum(p.numel() for p in load_denoiser(run, "raw")[0].parameters()),
        "size/train_images": 288,
        "size/batch": 60,
    }


def test_every_logger_has_the_same_figures(run: Path) -> None:
    assert scalars(run) == table(run)


def test_figures_mean_what_they_say(run: Path) -> None:
    figures = table(run)
    lr = OmegaConf.load(run / "config.yaml").optimizer.lr
    assert figures["train/lr"][4] == pytest.approx(lr * (0.01 + 0.99 * 3 / 100), rel=1e-6)  # that of the fourth step
    assert all(0 < ratio < 0.5 for ratio in figures["train/update_ratio"].values())
    assert all(0 <= share < 1 for share in figures["throughput/data_wait"].values())
    rate, seconds = figures["throughput/images_per_s"][4], figures["throughput/step_seconds"][4]
    assert rate * seconds == pytest.approx(60, rel=1e-5)
    assert 0.05 < figures["memory/peak_gib"][4] < 64 and figures["train/not_finite"][4] == 0
    norm, clipped = figures["train/grad_norm"][4], figures["train/clipped"][4]
    assert norm > 0 and clipped in (0.25, 0.5, 0.75, 1) if norm > 1 else clipped in (0, 0.25, 0.5, 0.75)


def test_the_raw_loss_is_that_of_the_raw_weights_on_the_same_noise(run: Path) -> None:
    """Computed again from the checkpoint; the average, whose loss stands beside it, is another model."""
    data = DigitsData(batch_size=60)
    data.setup()
    losses = {}
    for weights in ("ema", "raw"):
        denoiser, checkpoint = load_denoiser(run, weights)
        loss = instantiate(OmegaConf.create(checkpoint["config"]).loss)
        module = DiffusionModule(denoiser, loss, None, None)  # type: ignore[arg-type]
        with torch.no_grad():
            for index, batch in enumerate(data.val_dataloader()):
                module.validation_step(batch, index)
        losses[weights] = float(module.held_out.compute()["loss"])
    figures = table(run)
    assert figures["val/loss"][6] == pytest.approx(losses["ema"], rel=1e-5)
    assert (
        figures["val/loss_raw"][6] == pytest.approx(losses["raw"], rel=1e-5) != pytest.approx(losses["ema"], rel=1e-3)
    )


def test_pictures_are_of_the_average_the_raw_weights_and_the_way_from_noise(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    pictures = {}
    for name in ("samples", "samples_raw", "denoising"):
        assert [image.step for image in events.Images(name)] == [3, 6]
        files = sorted((run / name).iterdir())
        assert [file.stem for file in files] == [f"step_{step:07d}" for step in (3, 6)]
        with Image.open(files[-1]) as picture:
            pictures[name] = np.asarray(picture).astype(int)
        assert (events.Images(name)[-1].height, events.Images(name)[-1].width) == pictures[name].shape[:2]
    assert pictures["samples"].shape == pictures["samples_raw"].shape
    assert not np.array_equal(pictures["samples"], pictures["samples_raw"])
    first, last = pictures["samples"][18 : 18 + 48, 2:50], pictures["denoising"][18 : 18 + 48, -50:-2]
    assert np.abs(first - last).max() <= 1  # a strip ends in the image that the grid has of this noise


def test_a_checkpoint_keeps_the_sums_since_the_last_point(run: Path) -> None:
    kept = load_checkpoint(run)["training_figures"]
    assert kept["loss"].shape == (1, 2, 4) and float(kept["loss"][0, 1].sum()) == 120  # of the fifth and sixth step


def test_the_page_has_a_panel_for_each_figure(run: Path, tmp_path: Path) -> None:
    rows = read_table(run / "metrics.csv")
    shown = [name for panel in panels_of(rows) for name in panel.names]
    left_out = {"throughput/step_seconds", "size/batch", "size/parameters", "size/train_images"}
    assert len(shown) == len(set(shown)) and set(shown) == set(table(run)) - left_out - {"epoch", "images_seen"}
    names = ("step", "train/loss", "train/loss_most_noise", "memory/peak_gib")
    rows = [{name: row[name] for name in names if name in row} for row in rows]
    rows += [{"step": 8, "train/loss": float("nan"), "mine/figure": -1.0}]  # of a run that diverged
    draw_dashboard(rows, tmp_path / "dashboard.png", r"a run $\x$")  # a folder's name, and not a formula
    with Image.open(tmp_path / "dashboard.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000 and len(np.unique(pixels.reshape(-1, 3)[::50], axis=0)) > 20
    assert panels_of([{"step": 0}]) == []


def test_a_run_that_is_too_short_for_a_curve_has_no_page(tmp_path: Path) -> None:
    """And ends well: all that is known of it is its size."""
    trainer = train_in(
        *(tmp_path, "trainer.max_steps=2", "callback.fid=null", "callback.sample_grid=null"),
        "callback.dashboard={_target_: diffusion_lit.callback.Dashboard, folder: '${run_dir}'}",
        "trainer.log_every_n_steps=10",
    )
    assert trainer is not None and trainer.global_step == 2
    assert (tmp_path / "metrics.csv").is_file() and not (tmp_path / "dashboard.png").exists()


def test_the_page_is_drawn_at_the_end_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, str]] = []
    name = "diffusion_lit.callback.dashboard.draw_dashboard"
    monkeypatch.setattr(name, lambda rows, path, title: drawn.append((rows[-1]["step"], path.name)))
    page = "callback.dashboard={_target_: diffusion_lit.callback.Dashboard, folder: '${run_dir}'}"
    poison = "+callback.poison={_target_: tests.callback.test_nan_guard.PoisonGradient, steps: [4]}"
    quiet = ("callback.fid=null", "callback.sample_grid=null", "trainer.log_every_n_steps=1")
    with pytest.raises(FloatingPointError):
        train_in(tmp_path, *quiet, page, poison, "callback.nan_guard.every_n_steps=1")
    assert drawn == [(4, "dashboard.png")] and "callback.dashboard=null" in TINY


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"callback\.sample_grid\.strips must not be negative, got -1"):
        SampleGrid(None, "x", strips=-1)  # type: ignore[arg-type]
