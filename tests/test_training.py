"""Whole runs: what they write, that a resumed one is the same run, that several processes are one."""

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from PIL import Image

from diffusion_lit.callback import EMA, NaNGuard, SampleGrid
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.command_line.mistake import explain
from diffusion_lit.command_line.sample_settings import settings_of_record
from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.data import ArrayImages, Batch, DigitsData, Images
from diffusion_lit.density import UniformDensity
from diffusion_lit.loss import LossTerms, MSELoss
from diffusion_lit.module import DiffusionModule
from diffusion_lit.page.commands import commands_of
from diffusion_lit.picture.grid import HEADER
from diffusion_lit.picture.image import from_uint8
from diffusion_lit.run.past import read_run
from diffusion_lit.weighting import UnitWeighting
from tests.launch import PATIENCE, TINY, Forked, config, read_by_bash, run_forked, train_in
from tests.repeats import slow_but
from tests.wandb_file import read_offline_run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> dict[int, float]:
    """The values of a metric by step."""
    return {int(row["step"]): float(row[name]) for row in rows(run) if row.get(name)}


def same(a: Path, b: Path, keys: tuple[str, ...] = ("state_dict", "ema")) -> bool:
    """Whether two checkpoints have equal weights, to the bit."""
    first, second = load_checkpoint(a), load_checkpoint(b)
    return all(torch.equal(w, second[key][name]) for key in keys for name, w in first[key].items())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps, across epochs and validations."""
    folder = tmp_path_factory.mktemp("run")
    train_in(folder, "trainer.max_steps=10", "model.dropout=0.1", "trainer.log_every_n_steps=1")
    return folder


def test_a_run_s_folder_has_everything(run: Path) -> None:
    assert (run / "checkpoints" / "last.ckpt").is_file() and (run / "checkpoints" / "best.ckpt").is_file()
    assert [path.name for path in sorted((run / "samples").iterdir())] == [
        f"step_{step:07d}.png" for step in (3, 6, 9, 10)
    ]
    assert OmegaConf.load(run / "config.yaml").model.resolution == 8  # resolved, `auto` replaced
    assert sorted(column(run, "train/loss")) == list(range(1, 11))
    for name in ("val/loss", "val/loss_least_noise", "val/loss_most_noise", "train/loss_more_noise", "train/lr"):
        assert column(run, name), name
    assert sorted(column(run, "fid/pixels_21")) == [3, 6, 9, 10]


def test_a_grid_has_a_column_for_each_class(run: Path) -> None:
    """Ten tiles of 8 x 8 pixels, magnified 6 times, with margins of 2, below the classes' names."""
    with Image.open(run / "samples" / "step_0000010.png") as grid:
        assert grid.size == (10 * 50 + 2, HEADER + 50 + 2)
        header = np.asarray(grid)[:HEADER].astype(int)
    names = [header[:, 2 + 50 * i : 50 + 50 * i] for i in range(10)]
    assert all((name > 200).any() for name in names) and len({name.tobytes() for name in names}) == 10
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["class_names"] == list("0123456789")


def test_a_resume_with_other_classes_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another order, as a set's that sorts its folders otherwise, too."""
    for names in (["1", "0", *"23456789"], ["one", *"123456789"], None):
        monkeypatch.setattr(DigitsData, "class_names", property(lambda self, names=names: names, lambda self, _: None))
        said = r"its classes are \['0', '1', .* and the data's are" if names else "num_classes=10 does not fit the data"
        with pytest.raises(ValueError, match=said):
            train_in(tmp_path, "trainer.max_steps=20", f"resume={run}")
    assert not (tmp_path / "checkpoints").exists()


def test_two_averages_keep_apart(tmp_path: Path) -> None:
    """Each is saved by its name, and validation sees the one named ema, wherever it stands."""
    slow = "+callback.slow={_target_: diffusion_lit.callback.EMA, decay: 0.1, name: ema_slow}"
    options = ("trainer.max_steps=3", "callback.sample_grid=null", "callback.fid=null")
    train_in(tmp_path / "one", *options)
    train_in(tmp_path / "two", *options, slow)
    one, two = (load_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert same(*(tmp_path / name / "checkpoints" / "last.ckpt" for name in ("one", "two")))
    assert column(tmp_path / "one", "val/loss") == column(tmp_path / "two", "val/loss")
    assert any(not torch.equal(two["ema_slow"][name], two["ema"][name]) for name in two["ema"])
    assert two["ema_slow_num_updates"] == 3 and "ema_slow" not in one
    averaged, _ = load_denoiser(tmp_path / "two", "ema_slow")
    name, weight = next(iter(averaged.named_parameters()))
    assert torch.equal(weight, two["ema_slow"][f"denoiser.{name}"])
    with pytest.raises(ValueError, match="no weights named ema_fast; use weights=ema or ema_slow or raw"):
        load_denoiser(tmp_path / "two", "ema_fast")
    with pytest.raises(ValueError, match=r"averages would overwrite each other: .* \['ema', 'ema'\]"):
        train_in(tmp_path / "three", *options, slow.replace("ema_slow", "ema"))


def test_a_figure_that_cannot_be_computed_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One validation image has no covariance: said once, and training continues to its end."""
    options = ("data._target_=tests.test_training.OneToValidate", "callback.sample_grid=null")
    trainer = train_in(tmp_path, "trainer.max_steps=4", *options)  # validated twice
    assert trainer.global_step == 4 and not any(name.startswith("fid/") for name in trainer.callback_metrics)
    assert caplog.text.count("is left out: it takes 2 validation images, and there is 1") == 1


class OneToValidate(DigitsData):
    def load(self) -> dict[str, Images]:
        splits = super().load()
        images, labels = splits["val"].fetch([0])
        return splits | {"val": ArrayImages(images, labels)}


def test_a_checkpoint_is_data_and_describes_itself(run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["config"] == OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    raw, averaged = load_denoiser(run, "raw")[0], load_denoiser(run, "ema")[0]
    name, weight = next(iter(raw.named_parameters()))
    assert torch.equal(weight, checkpoint["state_dict"][f"denoiser.{name}"])
    assert torch.equal(dict(averaged.named_parameters())[name], checkpoint["ema"][f"denoiser.{name}"])
    assert not torch.equal(weight, dict(averaged.named_parameters())[name])


def test_validation_is_of_the_average_on_fixed_noise(run: Path) -> None:
    """The logged loss, computed again from the checkpoint that it chose as the best."""
    denoiser, checkpoint = load_denoiser(run / "checkpoints" / "best.ckpt", "ema")
    loss = instantiate(OmegaConf.create(checkpoint["config"]).loss)
    data = DigitsData(batch_size=60)
    data.setup()
    module = DiffusionModule(denoiser, loss, None, None)  # type: ignore[arg-type]
    with torch.no_grad():
        for index, batch in enumerate(data.val_dataloader()):
            module.validation_step(batch, index)
    again = float(module.held_out.compute()["loss"])
    assert again == pytest.approx(min(column(run, "val/loss").values()), rel=1e-6)


@pytest.mark.parametrize("stop", slow_but((9,), (1, 3, 4, 6, 9)))
def test_a_resumed_run_is_the_same_run(run: Path, tmp_path: Path, stop: int) -> None:
    """Stopped in the middle of an epoch, at its end, at a validation: equal to the bit, loss by loss."""
    quiet = ("callback.fid=null", "callback.sample_grid=null", "callback.best_checkpoint=null")
    options = ("model.dropout=0.1", *quiet, "trainer.log_every_n_steps=1")
    train_in(tmp_path / "a", f"trainer.max_steps={stop}", *options)
    train_in(tmp_path / "b", "trainer.max_steps=10", f"resume={tmp_path / 'a'}", *options)
    assert same(run / "checkpoints" / "last.ckpt", tmp_path / "b" / "checkpoints" / "last.ckpt")
    for name in ("train/loss", "val/loss", "train/lr"):  # the table begins with its parent's rows
        assert column(tmp_path / "b", name) == column(run, name)


def test_resuming_is_exact_with_accumulation_too(tmp_path: Path) -> None:
    options = (
        "trainer.accumulate_grad_batches=2",
        "data.batch_size=30",
        "callback.fid=null",
        "callback.sample_grid=null",
        "callback.best_checkpoint=null",
    )
    train_in(tmp_path / "whole", "trainer.max_steps=8", *options)  # nine batches an epoch, the last one alone
    train_in(tmp_path / "a", "trainer.max_steps=3", *options)
    train_in(tmp_path / "b", "trainer.max_steps=8", f"resume={tmp_path / 'a'}", *options)
    assert same(tmp_path / "whole" / "checkpoints" / "last.ckpt", tmp_path / "b" / "checkpoints" / "last.ckpt")


SHARED = {
    "stratified": ("density=stratified", "model.dropout=0.1"),
    "importance": ("density=importance", "density.num_bins=5", "density.history_size=2"),
}


@pytest.mark.parametrize(
    ("density", "devices"),
    [
        ("stratified", 2),
        pytest.param("stratified", 4, marks=pytest.mark.slow),
        pytest.param("importance", 4, marks=pytest.mark.slow),
    ],
)
def test_devices_and_accumulation_are_the_same_training(density: str, devices: int, tmp_path: Path) -> None:
    """Four batches a step as 1 x 4, 2 x 2 and 4 x 1: the same losses, rates and weights to 1e-5, across epochs."""
    options = (
        *("data.batch_size=23", "trainer.max_steps=4", "trainer.max_images=4000", "trainer.log_every_n_steps=1"),
        *("lr_schedule=warmup_cosine", "lr_schedule.num_steps=1", "augmentation=flip", *SHARED[density]),
        *("trainer.val_check_interval=4", "callback.sample_grid=null"),
    )
    train_in(tmp_path / "alone", *options, "trainer.accumulate_grad_batches=4")
    done = ranks(tmp_path / "shared", *options, f"trainer.accumulate_grad_batches={4 // devices}", devices=devices)
    assert done.returncode == 0, done.stderr
    for name, count in (("train/loss", 4), ("train/lr", 4), ("val/loss", 1), ("fid/pixels_21", 1)):
        expected, rel = column(tmp_path / "alone", name), 1e-3 if name.startswith("fid/") else 1e-5  # pixels round
        assert column(tmp_path / "shared", name) == pytest.approx(expected, rel=rel) and len(expected) == count
    alone, shared = (load_checkpoint(tmp_path / name) for name in ("alone", "shared"))
    for key in ("state_dict", "ema"):
        for name, w in alone[key].items():
            torch.testing.assert_close(shared[key][name], w, rtol=1e-5, atol=1e-5)


NETWORKS = {"tiny": (), "ncsnpp": ("model=ncsnpp", "model.channel_multipliers=[1,1]", "model.num_res_blocks=1")}
STATEFUL = {
    "uncertainty": ("loss=uncertainty", "density=stratified"),
    "importance": ("loss=hybrid", "model.learn_variance=true", "density=importance", "parameterization=eps"),
    "vlb": ("loss=vlb", "loss.variance=small", "schedule=cosine"),
    "edm": ("schedule=edm", "parameterization=edm", "density=lognormal", "sampler=heun", *NETWORKS["ncsnpp"]),
    "flow": ("schedule=flow", "parameterization=velocity", "density=logit_normal", "sampler=unipc"),
}


@pytest.mark.parametrize("name", slow_but(("uncertainty", "importance"), STATEFUL))
def test_every_kind_of_loss_trains_and_resumes_to_the_bit(name: str, tmp_path: Path) -> None:
    """With what it has learnt: the importance of each part of time, the uncertainty of each noise level."""
    importance = ("density.num_bins=5", "density.history_size=2") if name == "importance" else ()
    quiet = ("callback.fid=null", "callback.sample_grid=null", "callback.best_checkpoint=null")
    quiet += ("trainer.log_every_n_steps=1",)
    options = (*STATEFUL[name], *importance, *quiet)
    kept = ("callback.last_checkpoint.every_n_steps=2", "callback.last_checkpoint.keep_last=2")
    train_in(tmp_path / "whole", "trainer.max_steps=4", *kept, *options)
    half = tmp_path / "whole" / "checkpoints" / "last_step_0000002.ckpt"
    train_in(tmp_path / "b", "trainer.max_steps=4", f"resume={half}", *options)
    whole, resumed = (tmp_path / run / "checkpoints" / "last.ckpt" for run in ("whole", "b"))
    assert same(whole, resumed)
    losses = column(tmp_path / "whole", "train/loss")
    assert all(math.isfinite(loss) for loss in losses.values())
    state = load_checkpoint(whole)["state_dict"]
    if name == "uncertainty":
        assert state["loss.head.weight"].abs().sum() > 0
        assert set(load_checkpoint(whole)["ema"]) > {"loss.head.weight"}
    if name == "importance":
        assert int(state["loss.density.counts"].sum()) == 4 * 60
        assert column(tmp_path / "whole", "train/bound")
    if name == "edm":
        name = "network.noise.frequencies"  # drawn once; the average has them too
        assert torch.equal(load_denoiser(whole, "ema")[0].get_parameter(name), state[f"denoiser.{name}"])


def test_a_run_from_before_an_option_existed_resumes(run: Path, tmp_path: Path) -> None:
    """It had what the option's default is; another value is another model."""
    checkpoint = load_checkpoint(run)
    for group, key in (("schedule", "shift"), ("model", "learn_variance")):
        del checkpoint["config"][group][key]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    options = ("model.dropout=0.1", "callback.fid=null", "callback.sample_grid=null", f"resume={tmp_path / 'old.ckpt'}")
    assert train_in(tmp_path / "b", "trainer.max_steps=11", *options).global_step == 11
    with pytest.raises(ValueError, match=r"schedule.shift: 1.0 in the checkpoint, 2.0 now"):
        train_in(tmp_path / "c", "trainer.max_steps=11", "schedule.shift=2.0", *options)


def test_going_on_with_another_loss_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loss\._target_"):
        train_in(tmp_path / "b", "trainer.max_steps=10", f"resume={run}", "loss=uncertainty")


def test_the_best_checkpoint_can_be_resumed_too(run: Path, tmp_path: Path) -> None:
    options = ("model.dropout=0.1", "callback.fid=null", "callback.sample_grid=null")
    train_in(tmp_path / "b", "trainer.max_steps=10", f"resume={run / 'checkpoints' / 'best.ckpt'}", *options)
    assert same(run / "checkpoints" / "last.ckpt", tmp_path / "b" / "checkpoints" / "last.ckpt")


def test_resume_auto_takes_the_newest_run_of_the_same_model(tmp_path: Path) -> None:
    root, options = tmp_path / "train", ("callback.fid=null", "callback.sample_grid=null", f"output_root={tmp_path}")
    train_in(root / "first", "trainer.max_steps=3", "resume=auto", *options)  # nothing there yet: starts anew
    train_in(root / "other", "trainer.max_steps=2", "schedule=cosine", *options)
    resumed = train_in(root / "next", "trainer.max_steps=5", "resume=auto", *options)
    assert resumed is not None and resumed.global_step == 5
    assert json.loads((root / "next" / "run.json").read_text())["parent"] == str(
        root / "first" / "checkpoints" / "last.ckpt"
    )


def test_a_finished_run_is_not_run_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder is not kept either, and how to train on is said."""
    assert train_in(tmp_path / "again", f"resume={run}") is None
    assert f"{run} is finished: it was trained to step 10" in (said := capsys.readouterr().out)
    assert f"resume={run} trainer.max_steps=20" in said and not (tmp_path / "again").exists()


def test_going_on_with_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.channels: 8 in the checkpoint, 16 now"):
        train_in(tmp_path, f"resume={run}", "model.channels=16")


class Poison(Callback):
    """Makes a weight infinite after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            next(pl_module.parameters()).data.fill_(torch.inf)


def test_a_diverged_run_stops_and_keeps_what_was_good(tmp_path: Path) -> None:
    cfg = (
        "+callback.poison._target_=tests.test_training.Poison",
        "+callback.poison.step=5",
        "callback.nan_guard.every_n_steps=100",
        "callback.fid=null",
        "callback.sample_grid=null",
    )
    with pytest.raises(FloatingPointError, match=r"(?s)not finite at step 6.*best\.ckpt.*last\.ckpt.*optimizer\.lr"):
        train_in(tmp_path, "trainer.max_steps=10", *cfg)
    for name in ("last.ckpt", "best.ckpt"):
        checkpoint = load_checkpoint(tmp_path / "checkpoints" / name)
        assert checkpoint["global_step"] == 3
        assert all(w.isfinite().all() for w in checkpoint["state_dict"].values())


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cfg = ("+callback.poison._target_=tests.test_training.Poison", "+callback.poison.step=1", "callback.fid=null")
    with pytest.raises(FloatingPointError):
        train_in(tmp_path, "trainer.max_steps=4", *cfg)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_data_than_the_checkpoint_s_is_said(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ("callback.fid=null", "callback.sample_grid=null", "model.dropout=0.1")
    caplog.set_level("INFO")
    train_in(tmp_path, "trainer.max_steps=11", f"resume={run}", "data.seed=5", *options)
    assert "data.seed: 0 -> 5 (from the next step on, which is then no longer" in caplog.text
    assert "trainer.max_steps: 10 -> 11 (the same steps" in caplog.text and "optimizer." not in caplog.text


def test_nan_guard_reads_the_verdict_every_n_steps(tmp_path: Path) -> None:
    cfg = ("+callback.poison._target_=tests.test_training.Poison", "+callback.poison.step=1", "callback.fid=null")
    with pytest.raises(FloatingPointError, match="not finite at step 2"):
        train_in(
            tmp_path,
            "trainer.max_steps=50",
            "trainer.val_check_interval=40",
            "callback.nan_guard.every_n_steps=2",
            *cfg,
        )


def ranks(folder: Path, *args: str, devices: int = 2) -> subprocess.CompletedProcess[str]:
    """A run of several processes, which are copies of this one."""
    return run_forked(
        "train",
        *TINY,
        f"trainer.devices={devices}",
        "data.batch_size=30",
        "trainer.max_steps=5",
        "trainer.log_every_n_steps=1",
        f"hydra.run.dir={folder}",
        *args,
        cwd=folder.parent,
    )


class Witness(Callback):
    """Writes down what a rank trained on and with what noise, and the weights it ended with."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seen: list[torch.Tensor] = []
        self.noisy: list[torch.Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.denoiser.network  # type: ignore[union-attr]
        network.register_forward_pre_hook(lambda _, args: self.noisy.append(args[0].detach().clone()))  # type: ignore[union-attr, operator]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.noisy.clear()
        self.seen.append(batch.images)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        weights = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        record = {"seen": self.seen, "noisy": self.noisy[0], "weights": weights}
        torch.save(record, self.folder / f"rank_{trainer.global_rank}.pt")


SHARDED = ("loss=uncertainty", "density=stratified")


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two copies of the model, with what each witnessed beside it."""
    folder = tmp_path_factory.mktemp("replicas")
    witness = f"+callback.witness={{_target_: tests.test_training.Witness, folder: {folder}}}"
    done = ranks(folder / "ddp", "strategy=ddp", *SHARDED, witness)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_share_the_data_not_the_noise_and_end_alike(replicas: Path) -> None:
    first, second = (torch.load(replicas / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(w, second["weights"][name]) for name, w in first["weights"].items())

    data = DigitsData()
    data.setup()
    visits = {image.numpy().tobytes(): 0 for image in data.splits["train"].images}  # type: ignore[attr-defined]
    for step in range(4):  # the first epoch
        for images in (first["seen"][step], second["seen"][step]):
            for image in images:
                visits[image.numpy().tobytes()] += 1
    assert sum(visits.values()) == 240 and max(visits.values()) == 1  # disjoint: no image twice

    difference = first["noisy"] - second["noisy"]
    assert difference.abs().mean() > 0.1
    noise = [record["noisy"] - from_uint8(record["seen"][-1]) for record in (first, second)]
    flat = torch.stack([(n - n.mean(0)).flatten() for n in noise])  # without what all digits have in common
    assert abs(float(torch.corrcoef(flat)[0, 1])) < 0.1  # 1,920 pixels: independent noise correlates by about 0.02


def test_shared_out_parameters_train_as_copies_do(replicas: Path, tmp_path: Path) -> None:
    execution = ("execution.channels_last=true", "execution.gradient_checkpointing=true")
    done = ranks(tmp_path / "fsdp", "strategy=fsdp", *SHARDED, *execution)
    assert done.returncode == 0, done.stderr
    assert_alike(replicas / "ddp", tmp_path / "fsdp")


@pytest.mark.slow
def test_shared_out_parameters_of_another_network_train_as_copies_do(tmp_path: Path) -> None:
    for strategy in ("ddp", "fsdp"):
        done = ranks(tmp_path / strategy, f"strategy={strategy}", *SHARDED, *NETWORKS["ncsnpp"])
        assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "ddp", tmp_path / "fsdp")


def assert_alike(run: Path, other: Path) -> None:
    """To rounding: weights, average, FID."""
    a, b = load_checkpoint(run), load_checkpoint(other)
    for key in ("state_dict", "ema"):
        for name, w in a[key].items():
            torch.testing.assert_close(b[key][name], w, rtol=1e-3, atol=1e-5)
    assert column(run, "fid/pixels_21") == pytest.approx(column(other, "fid/pixels_21"), rel=1e-3)


HYBRID = "strategy=hsdp trainer.strategy.num_replicas=2 trainer.strategy.shard_size=2"


@pytest.mark.parametrize(
    ("strategy", "devices"),
    [("strategy=ddp_static", 2), pytest.param(HYBRID, 4, marks=pytest.mark.slow)],
)
def test_every_strategy_trains_as_one_process_does(strategy: str, devices: int, tmp_path: Path) -> None:
    """Replicas stand for nodes. What copies of the model saved goes on in one process."""
    options = ("loss=uncertainty", "callback.fid=null", "callback.sample_grid=null", "trainer.log_every_n_steps=1")
    steps = ("data.batch_size=24", "trainer.max_steps=3")
    done = ranks(tmp_path / "shared", *options, *strategy.split(), *steps, devices=devices)
    assert done.returncode == 0, done.stderr
    train_in(tmp_path / "alone", *options, *steps, f"trainer.accumulate_grad_batches={devices}")
    alone, shared = (load_checkpoint(tmp_path / name) for name in ("alone", "shared"))
    for key in ("state_dict", "ema"):
        for name, w in alone[key].items():
            torch.testing.assert_close(shared[key][name], w, rtol=1e-5, atol=1e-5)
    for name in ("train/loss", "val/loss"):
        assert column(tmp_path / "shared", name) == pytest.approx(column(tmp_path / "alone", name), rel=1e-5)
    more = ("trainer.max_steps=4", f"resume={tmp_path / 'shared'}", "strategy=auto", "trainer.devices=1")
    assert train_in(tmp_path / "more", *options, "data.batch_size=24", *more).global_step == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("strategy=ddp_static", "trainer.accumulate_grad_batches=2"), "ddp_static is for .*accumulate_grad_batches=1"),
        (
            ("strategy=hsdp", "trainer.devices=1"),
            "2 processes or more, got trainer.strategy.shard_size=1; .* strategy=ddp",
        ),
        (("strategy=hsdp", "trainer.strategy.shard_size=3"), "num_replicas=1 x trainer.strategy.shard_size=3 must be"),
    ],
)
def test_strategies_that_cannot_be_are_refused(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        train_in(tmp_path, *options)


@pytest.mark.slow
def test_a_run_with_shared_out_parameters_resumes(tmp_path: Path) -> None:
    options = ("strategy=fsdp", *SHARDED)
    assert ranks(tmp_path / "run", *options).returncode == 0
    done = ranks(tmp_path / "more", "trainer.max_steps=8", *options, f"resume={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "more")["global_step"] == 8


@pytest.mark.parametrize(
    ("number", "devices", "start"),
    [
        (signal.SIGINT, 1, Forked),
        (signal.SIGTERM, 2, Forked),
        pytest.param(signal.SIGTERM, 1, Forked, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, subprocess.Popen, marks=pytest.mark.slow),  # ranks as they really are
    ],
)
def test_a_run_that_is_asked_to_stop_saves_first(
    tmp_path: Path, number: signal.Signals, devices: int, start: Any
) -> None:
    args = [*TINY, "trainer.max_steps=100000", "trainer.val_check_interval=100000", f"trainer.devices={devices}"]
    command = [sys.executable, "-m", "diffusion_lit.train", *args, f"hydra.run.dir={tmp_path / 'run'}"]
    command += ["logger.csv.flush_seconds=0", "trainer.log_every_n_steps=1"]
    metrics, deadline = tmp_path / "run" / "metrics.csv", time.monotonic() + PATIENCE
    with (tmp_path / "stderr").open("w") as file:
        process = start(command, cwd=tmp_path, env=dict(os.environ), stderr=file.fileno())
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    stderr = (tmp_path / "stderr").read_text()
    assert f"stopped by {number.name}" in stderr and "Traceback" not in stderr
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint["global_step"] > 0 and checkpoint["ema"]


@pytest.mark.slow  # tests/command_line/test_sweep.py has a smaller one
def test_sweep_has_a_folder_for_each_job(tmp_path: Path) -> None:
    done = run_forked(
        "train",
        "-m",
        "schedule=linear,cosine",
        "model=tiny,small",
        *[option for option in TINY if "model" not in option],
        "model.channels=8",
        "model.num_groups=4",
        "model.head_channels=null",
        "model.channel_multipliers=[1]",
        "model.attention_resolutions=[]",
        "trainer.max_steps=1",
        "callback.fid=null",
        "callback.sample_grid=null",
        "logger=[csv,wandb]",
        "logger.wandb.offline=true",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "outputs" / "multirun").glob("*/*/config.yaml"))
    assert len(runs) == 4
    chosen = {
        (OmegaConf.load(r).schedule._target_.split(".")[-1], OmegaConf.load(r).model.num_res_blocks) for r in runs
    }
    assert chosen == set(itertools.product(["LinearSchedule", "CosineSchedule"], [1, 2]))
    assert all((path.parent / "checkpoints" / "last.ckpt").is_file() for path in runs)
    assert all(len(list(path.parent.glob("wandb/offline-run-*"))) == 1 for path in runs)  # a W&B run for each job
    for path in runs:
        wandb = OmegaConf.load(path).logger.wandb
        assert (wandb.name, wandb.group) == (path.parent.name, path.parents[1].name)
        started = read_offline_run(path.parent).run
        assert (started.display_name, started.run_group) == (wandb.name, wandb.group)


def test_a_sweep_of_several_processes_trains_each_job_once(tmp_path: Path) -> None:
    done = run_forked(
        "train",
        *("-m", "seed=1,2", *TINY, "trainer.devices=2", "trainer.max_steps=2"),
        *("callback.fid=null", "callback.sample_grid=null"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "outputs" / "multirun").glob("*/*/config.yaml"))
    assert [OmegaConf.load(path).seed for path in runs] == [1, 2]
    assert all(load_checkpoint(path.parent)["global_step"] == 2 for path in runs)
    assert not (tmp_path / "outputs" / "train").exists()


def test_sampling_while_training_leaves_no_trace(run: Path, tmp_path: Path) -> None:
    """Grids and FID change neither the weights nor any random draw."""
    quiet = ("callback.fid=null", "callback.sample_grid=null")
    train_in(tmp_path, "trainer.max_steps=10", "model.dropout=0.1", *quiet)
    assert same(run / "checkpoints" / "last.ckpt", tmp_path / "checkpoints" / "last.ckpt")


def test_a_run_that_is_shorter_than_the_usual_interval_has_a_validation_loss(tmp_path: Path) -> None:
    """As the first examples of the documents are."""
    usual = tuple(option for option in TINY if not option.startswith("trainer.val_check_interval"))
    train_in(tmp_path, "trainer.max_steps=2", "callback.fid=null", "callback.sample_grid=null", tiny=usual)
    assert list(column(tmp_path, "val/loss")) == [2] and (tmp_path / "checkpoints" / "best.ckpt").is_file()
    steps = {"": 700, "trainer.max_steps=9000": 700, "trainer.max_steps=null": 700, "trainer.max_steps=7": 7}
    found = {
        option: config(tmp_path, *filter(None, [option]), tiny=False).trainer.val_check_interval for option in steps
    }
    assert found == steps


def test_the_commands_that_are_printed_draw_from_a_model_that_defaults_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a chain shorter than the usual number of steps, without a class hidden in training; and none of no file."""
    options = ("schedule=cosine", "schedule.num_timesteps=20", "label_dropout=0", "trainer.max_steps=1")
    options += ("callback.fid=null", "callback.sample_grid=null")
    train_in(tmp_path / "run", *options)
    [ended] = [line for line in capsys.readouterr().out.splitlines() if "diffusion_lit.sample" in line]
    assert dict(commands_of(read_run(tmp_path / "run")))["Draw from it"] == ended.strip()
    arguments = read_by_bash(ended)
    assert arguments[2:] == [f"ckpt={tmp_path / 'run'}", "sampler.num_steps=20"]
    done = run_forked("sample", *arguments[2:], "num_samples=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    train_in(tmp_path / "none", *options, "callback.last_checkpoint=null")
    assert "Try next" not in capsys.readouterr().out


def test_a_grid_every_n_epochs(tmp_path: Path) -> None:
    options = ("callback.sample_grid.every_n_steps=null", "callback.sample_grid.every_n_epochs=2", "callback.fid=null")
    train_in(tmp_path, "trainer.max_steps=9", "trainer.val_check_interval=100", *options)  # four steps an epoch
    assert sorted(path.stem for path in (tmp_path / "samples").iterdir()) == ["step_0000008", "step_0000009"]


@pytest.mark.parametrize("precision, kept", [("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16)])
def test_bf16_trains_and_the_average_stays_float32(precision: str, kept: torch.dtype, tmp_path: Path) -> None:
    train_in(tmp_path, "trainer.max_steps=3", f"trainer.precision={precision}", "callback.fid=null")
    checkpoint = load_checkpoint(tmp_path)
    assert {w.dtype for w in checkpoint["state_dict"].values()} == {kept}
    assert {w.dtype for w in checkpoint["ema"].values()} == {torch.float32}
    assert len(column(tmp_path, "val/loss")) == 1


def test_label_dropout_hides_a_tenth(tmp_path: Path) -> None:
    cfg = config(
        tmp_path,
        "model.resolution=8",
        "model.image_channels=1",
        "model.num_classes=10",
        "space=null",
        "model.augmentation_dim=0",
    )
    module: DiffusionModule = instantiate(cfg.module)
    seen: list[torch.Tensor] = []

    class Witnessed(MSELoss):
        def forward(self, denoiser: Any, x_0: Any, condition: Any, *args: Any) -> LossTerms:  # type: ignore[override]
            seen.append(condition.label)
            return LossTerms(x_0.mean((1, 2, 3)), x_0.mean((1, 2, 3)))

    module.loss = Witnessed(UniformDensity(), UnitWeighting())
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.strategy.connect(module)
    module.trainer = trainer
    images, labels = torch.zeros(10_000, 1, 8, 8, dtype=torch.uint8), torch.arange(10).repeat(1000)
    module.training_step(Batch(images, Condition(labels), list(range(10_000))), 0)
    hidden = seen[0] == NO_CLASS
    assert abs(float(hidden.float().mean()) - 0.1) < 0.015  # 5 standard errors
    assert torch.equal(seen[0][~hidden], labels[~hidden])


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: NaNGuard(0), "every_n_steps"),
        (lambda: SampleGrid(None, "x", rows=0), "rows"),  # type: ignore[arg-type]
        (lambda: EMA(1.5), "decay"),
        (lambda: DiffusionModule(None, None, None, None, label_dropout=1.0), "label_dropout"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_refused(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_the_command_that_draws_fits_the_model() -> None:
    """Its average's name, clipping, steps."""
    ema = {"_target_": "diffusion_lit.callback.EMA"}
    other, long = {**ema, "name": "ema_slow"}, {**ema, "name": "ema_long"}
    short = {"_target_": "LinearSchedule", "num_timesteps": 20}
    assert settings_of_record({"callback": {"a": ema}, "sampler": {"clip": 1}}) == {}
    assert settings_of_record({"callback": {"a": other, "b": ema, "c": None}}) == {}
    given = {"weights": "ema_slow", "sampler.num_steps": 20, "sampler.clip": "0.5"}
    assert (
        settings_of_record({"callback": {"a": other, "b": long}, "schedule": short, "sampler": {"clip": 0.5}}) == given
    )
    latents = {"space": {"autoencoder": "vae"}, "schedule": {"num_timesteps": 1000}}
    assert settings_of_record(latents) == {"weights": "raw", "sampler.clip": "null"}


MEANINGLESS = {
    "seed=-1": "seed must lie between 0 and 4294967295, got -1",
    "init_weights=raw": "init_weights=raw would be ignored without init=RUN",
    "optimizer.lr=-1": r"optimizer cannot be built \(Invalid learning rate: -1\) with optimizer.lr=-1, ",
    "optimizer.weight_decay=-0.1": "Invalid weight_decay value",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be at least 1, got 0",
    "trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch must be at least 1, got 0",
    "trainer.devices=-1": "trainer.devices=-1 must be at least 1, or -1 for all GPUs",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val must be at least 0, got -1; null does not clip",
    "trainer.log_every_n_steps=-1": "trainer.log_every_n_steps must be at least 0, got -1",
    "trainer.max_images=inf": "trainer.max_images must be positive and finite, or null",
    "trainer.val_check_interval=0": "trainer.val_check_interval must be at least 1, got 0",
}


@pytest.mark.parametrize("setting", MEANINGLESS)
def test_a_number_that_means_nothing_is_named_before_there_is_a_folder(setting: str, tmp_path: Path) -> None:
    """Platforms take them: a negative limit turned gradients around, a rate was refused once a run had begun."""
    with pytest.raises(ValueError, match=MEANINGLESS[setting]):
        train_in(tmp_path, setting)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_built_of_its_settings_is_a_mistake_and_not_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InstantiationException) as caught:
        train_in(tmp_path, "schedule.num_timesteps=-1")
    said = "RuntimeError: number of steps must be non-negative) (in module.denoiser.schedule): see --help"
    assert said in str(explain(caught.value))


def test_two_ways_to_begin_are_one_too_many(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"init=.* would be ignored with resume="):
        train_in(tmp_path, f"resume={run}", f"init={run}", tiny=())
