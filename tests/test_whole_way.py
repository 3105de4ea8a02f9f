"""Every network goes the whole way: it trains the demo's digits, resumes, is exported in each format and sharded."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_lit as dl
import diffusion_lit.model
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.condition import Condition
from diffusion_lit.model import Network
from diffusion_lit.model.magnitude import force_unit_weights
from diffusion_lit.sampler import DDIMSampler
from tests.launch import TINY, config, run_forked, train_in
from tests.repeats import slow_but
from tests.test_export import exported
from tests.test_training import column

COMMON = tuple(option for option in TINY if not option.startswith("model."))
EDM = ("schedule=edm", "parameterization=edm", "density=lognormal")
SMALL = (
    "model.channels=8",
    "model.channel_multipliers=[1,2]",
    "model.num_res_blocks=1",
    "model.attention_resolutions=[4]",
)
NETWORKS: dict[str, tuple[str, ...]] = {
    "unet": ("model=tiny", *SMALL, "model.num_groups=4"),
    "adm": (
        "model=adm_imagenet64",
        *SMALL,
        "model.num_groups=4",
        "model.head_channels=4",
        "model.null_class=true",
        "loss=hybrid",
        "parameterization=eps",
    ),
    "ncsnpp": ("model=ncsnpp", *SMALL, *EDM),
    "edm2": ("model=edm2_s", *SMALL, "model.head_channels=4", *EDM, "optimizer=adam", "optimizer.lr=0.01"),
    "dit": ("model=dit_tiny", "model.channels=32", "model.depth=2", "schedule=flow", "parameterization=velocity"),
}
"""Settings of a tiny network of each family, with those that it is mostly trained with."""
QUIET = ("callback.fid=null", "callback.sample_grid=null", "callback.raw_loss=null", "logger=[csv]")
DROPOUT = "model.dropout=0.1"
CHEAP = "dit"
"""Taken along by the default suite; the others' parts of the way are there in other tests."""

walk = pytest.mark.parametrize("name", slow_but((CHEAP,), NETWORKS))


def options(name: str) -> tuple[str, ...]:
    return (*COMMON, *QUIET, *NETWORKS[name], *(() if name == "dit" else (DROPOUT,)))


def weights_of(path: Path, keys: tuple[str, ...] = ("state_dict", "ema")) -> dict[str, Tensor]:
    checkpoint = load_checkpoint(path)
    return {f"{key}: {name}": w for key in keys for name, w in checkpoint[key].items()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first and first.keys() == second.keys()
    assert [name for name, w in first.items() if not torch.equal(w, second[name])] == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def run(name: str, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of the network `name`, with its checkpoint of the third."""
    if name not in runs:
        runs[name] = tmp_path_factory.mktemp("runs") / f"{name} = 1"
        kept = ("callback.last_checkpoint.every_n_steps=3", "callback.last_checkpoint.keep_last=2")
        train_in(runs[name], "trainer.max_steps=6", *kept, tiny=options(name))
    return runs[name]


def test_every_network_goes_the_way(tmp_path: Path) -> None:
    kinds = {kind for kind in vars(diffusion_lit.model).values() if isinstance(kind, type)}
    classes = {kind.__name__ for kind in kinds if issubclass(kind, Network) and kind is not Network}
    configs = [config(tmp_path, *options(name), tiny=False) for name in NETWORKS]
    assert {cfg.model._target_.rpartition(".")[2] for cfg in configs} == classes


@walk
def test_it_resumes_to_the_bit(name: str, run: Path, tmp_path: Path) -> None:
    half = run / "checkpoints" / "last_step_0000003.ckpt"
    train_in(tmp_path / "rest", "trainer.max_steps=6", f"resume='{half}'", tiny=options(name))
    whole, before = weights_of(run), weights_of(half)
    assert_equal(whole, weights_of(tmp_path / "rest"))
    assert any(not torch.equal(w, before[key]) for key, w in whole.items())


@walk
def test_it_goes_out_and_comes_back_to_the_bit(name: str, run: Path, tmp_path: Path) -> None:
    """As a file, by which it draws the same images, and with which a new run begins."""
    out = exported(f"ckpt={run}", f"out={tmp_path / 'out = x'}")
    before, after = dl.load(run), dl.load(out)
    assert_equal(dict(before.denoiser.state_dict()), dict(after.denoiser.state_dict()))
    assert torch.equal(before.sample(2, num_steps=2), after.sample(2, num_steps=2))
    still = ("optimizer.lr=1e-12", "trainer.max_steps=1", f"init='{out}'")
    train_in(tmp_path / "next", *still, tiny=options(name))
    force_unit_weights(before.denoiser)  # as each step of EDM2's begins
    began = before.denoiser.state_dict()
    for key, w in load_denoiser(tmp_path / "next", "raw")[0].state_dict().items():
        torch.testing.assert_close(w, began[key], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch_export", "onnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_its_graph_draws_what_it_draws(
    name: str,
    format: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program of its card, which needs nothing of this project, has the images of our DDIM from the same noise."""
    onnxruntime = pytest.importorskip("onnxruntime")
    out = exported(f"ckpt={run}", f"out={tmp_path / 'out'}", f"format={format}", "num_steps=4")
    [difference] = re.findall(r"they differ by at most (\S+)\n", capsys.readouterr().out)
    assert float(difference) <= 1e-4
    [code] = re.findall(r"```python\n(import json(?:.|\n)*?)```", (out / "README.md").read_text())
    names: dict[str, Any] = {}
    monkeypatch.chdir(out)  # the program is for the folder that it is in
    exec(code, names)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 1, 8, 8), dtype=np.float32))
    denoiser, _ = load_denoiser(run)
    expected = DDIMSampler(4, clip=1.0)(denoiser, lambda: noise, Condition(torch.arange(4)))
    torch.testing.assert_close(torch.from_numpy(names["images"]), expected, rtol=0, atol=1e-4)
    if format == "onnx":
        session = onnxruntime.InferenceSession(out / "denoiser.onnx", providers=["CPUExecutionProvider"])
        axes = {value.name: value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())}
        assert set(axes.values()) == {"batch"}, axes


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_shared_out_it_trains_as_one_process_does(name: str, tmp_path: Path) -> None:
    """Two processes, each of which holds half of the parameters; and what they save resumes, in one process too."""
    steps = (*options(name), "trainer.max_steps=3", "data.batch_size=30", "trainer.log_every_n_steps=1")
    steps = tuple(option for option in steps if option != DROPOUT)  # which each process draws for its own batches
    folders = {part: tmp_path / part for part in ("alone", "shared", "more")}
    train_in(folders["alone"], "trainer.accumulate_grad_batches=2", tiny=steps)
    fsdp = ("strategy=fsdp", "trainer.devices=2")
    for part, more in {"shared": (), "more": (f"resume={folders['shared']}", "trainer.max_steps=5")}.items():
        done = run_forked("train", *steps, *fsdp, *more, f"hydra.run.dir={folders[part]}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    alone = weights_of(folders["alone"])
    for key, w in weights_of(folders["shared"]).items():
        torch.testing.assert_close(w.float(), alone[key].float(), rtol=1e-3, atol=1e-3)
    assert load_checkpoint(folders["more"])["global_step"] == 5
    denoiser, _ = load_denoiser(folders["more"])
    assert all(w.isfinite().all() for w in denoiser.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_the_demo_s_digits(name: str, tmp_path: Path) -> None:
    """A hundred steps leave at most 70% of the loss with which it began, on digits that it has not seen."""
    fast = ("trainer.max_steps=100", "trainer.val_check_interval=50", "lr_schedule=constant", "callback.ema.decay=0.9")
    train_in(tmp_path, *fast, "trainer.log_every_n_steps=1", tiny=options(name))
    losses = {kind: list(column(tmp_path, f"{kind}/loss").values()) for kind in ("train", "val")}
    assert losses["val"][-1] < 0.7 * losses["train"][0], losses["val"]
