"""Runs of EDM2's network with its loss and averages: what is trained, resumed, shared out and made afterwards."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion_lit.average.snapshot import snapshots_of
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.model.magnitude import UnitWeight
from tests.launch import TINY, run_forked, train_in

EDM2 = (
    *(option for option in TINY if not option.startswith("model.")),
    *("model=edm2_s", "model.channels=8", "model.channel_multipliers=[1,2]", "model.num_res_blocks=1"),
    *("model.attention_resolutions=[4]", "model.head_channels=4", "model.dropout=0.1"),
    *("schedule=edm", "parameterization=edm", "density=lognormal", "loss=uncertainty", "loss.unit_weight=true"),
    *("callback=[default,power_ema]", "callback.power_ema.every_n_steps=2", "callback.fid=null"),
    *("callback.sample_grid=null", "lr_schedule=inverse_sqrt", "lr_schedule.num_steps=0", "optimizer=adam"),
    *(
        "optimizer.lr=0.01",
        "trainer.gradient_clip_val=null",
        "logger=[]",
        "trainer.val_check_interval=6",
        "callback.raw_loss=null",
    ),
)


def train_edm2(folder: Path, *overrides: str) -> Path:
    assert train_in(folder, *overrides, tiny=EDM2) is not None
    return folder


def weights_of(run: Path) -> dict[str, Tensor]:
    """All that is kept of a run's weights, by place and name."""
    checkpoint = load_checkpoint(run)
    kept = {key: checkpoint[key] for key in ("state_dict", "ema", "ema_short")}
    kept |= {s.path.name: s.read(checkpoint["ema"]) for s in snapshots_of(run)}
    return {f"{place}: {name}": w for place, part in kept.items() for name, w in part.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_edm2(tmp_path_factory.mktemp("runs") / "whole = 1", "trainer.max_steps=6")


def test_a_resumed_run_is_the_same_to_the_bit_snapshots_and_all(run: Path, tmp_path: Path) -> None:
    train_edm2(tmp_path / "part", "trainer.max_steps=3")
    train_edm2(tmp_path / "rest", "trainer.max_steps=6", f"resume='{tmp_path / 'part'}'")
    whole, resumed = weights_of(run), weights_of(tmp_path / "rest")
    assert len({name.partition(":")[0] for name in whole}) == 3 + 2 * 3
    assert whole.keys() == resumed.keys()
    assert [name for name, w in whole.items() if not torch.equal(w, resumed[name])] == []


def test_weights_are_near_unit_magnitude_and_frequencies_as_drawn(run: Path) -> None:
    """A step moves a weight a little off the unit magnitude that it began with."""
    denoiser, _ = load_denoiser(run, "raw")
    weights = [layer.weight.detach() for layer in denoiser.modules() if isinstance(layer, UnitWeight)]
    rows = [row for weight in weights for row in weight.flatten(1)]
    magnitudes = torch.stack([row.square().mean().sqrt() for row in rows])
    assert float(magnitudes.min()) > 0.98 and float(magnitudes.max()) < 1.02
    averaged, _ = load_denoiser(run, "ema")
    assert torch.equal(averaged.network.features.frequencies, denoiser.network.features.frequencies)
    assert "denoiser.network.features.frequencies" not in load_checkpoint(run)["ema"]


def test_any_length_is_a_model(run: Path) -> None:
    x, t = torch.randn(2, 1, 8, 8), torch.full((2, 1, 1, 1), 0.5)
    outputs = {w: load_denoiser(run, w)[0](x, t).x_0 for w in ("raw", "ema", "ema_short", "power_0.07", "power_0.1")}
    assert torch.equal(outputs["power_0.1"], outputs["ema"])
    apart = (outputs["ema"] - outputs["ema_short"]).abs().max()
    assert apart > 0 and (outputs["power_0.07"] - outputs["ema"]).abs().max() < apart


@pytest.mark.slow
def test_a_new_run_begins_with_an_average_made_of_snapshots(run: Path, tmp_path: Path) -> None:
    train_edm2(tmp_path / "next", "trainer.max_steps=1", f"init='{run}'", "init_weights=power_0.07", "optimizer.lr=0")
    old, new = (load_denoiser(path, weights)[0] for path, weights in ((run, "power_0.07"), (tmp_path / "next", "raw")))
    assert torch.equal(new.network.features.frequencies, old.network.features.frequencies)
    torch.testing.assert_close(new.network.first.weight, old.network.first.weight, rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_shared_out_parameters_train_as_one_process_does(tmp_path: Path) -> None:
    options = ("trainer.max_steps=3", "model.dropout=0", "callback.power_ema.every_n_steps=3", "data.batch_size=30")
    shared = ("strategy=fsdp", "trainer.devices=2", f"hydra.run.dir={tmp_path / 'shared'}")
    done = run_forked("train", *EDM2, *options, *shared, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone = weights_of(train_edm2(tmp_path / "alone", *options, "trainer.accumulate_grad_batches=2"))
    for name, w in weights_of(tmp_path / "shared").items():
        torch.testing.assert_close(w.float(), alone[name].float(), rtol=1e-3, atol=1e-3)
