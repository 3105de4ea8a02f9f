"""Power-function averages in training: their snapshots, and averages of other lengths made of them."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion_lit.average.power_function import decay
from diffusion_lit.average.snapshot import Snapshot, snapshots_of
from diffusion_lit.callback import EMA, PowerEMA
from diffusion_lit.checkpoint import choose_weights
from diffusion_lit.terminal.progress import Progress, activated
from tests.callback.test_ema import Line, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]

STEPS = 32


def averages(run: Path, **options: Any) -> list[PowerEMA]:
    settings = {"folder": str(run), "every_n_steps": 2, "dtype": "float32", **options}
    return [PowerEMA(0.1, **settings), PowerEMA(0.05, name="ema_short", **settings)]


def loader() -> DataLoader[Tensor]:
    return DataLoader(torch.full((STEPS, 1), 0.3), batch_size=1)


def fit(run: Path, steps: int, resume: Path | None = None, **options: Any) -> tuple[Line, Trainer]:
    module, lightning = Line(), trainer(run, *averages(run, **options), max_steps=steps, max_epochs=-1)
    lightning.fit(module, loader(), ckpt_path=resume)
    lightning.save_checkpoint(run / "checkpoints" / "last.ckpt")
    return module, lightning


def saved(run: Path, weights: str) -> float:
    file = run / "checkpoints" / "last.ckpt"
    return float(choose_weights(torch.load(file, weights_only=True), weights, file)["layer.weight"])


def contents(run: Path) -> dict[str, float]:
    found = snapshots_of(run)
    return {snapshot.path.name: float(snapshot.read(["layer.weight"])["layer.weight"]) for snapshot in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A run that nobody interrupted, and its weight after each step."""
    run = tmp_path_factory.mktemp("runs") / "whole = 1"
    module, _ = fit(run, STEPS)
    return run, module.trained


def recursion(weights: list[float], std: float) -> float:
    average = 0.0
    for step, w in enumerate(weights, start=1):
        average = decay(std, step) * average + (1 - decay(std, step)) * w
    return average


def test_averages_and_snapshots_are_the_recursion_s(whole: tuple[Path, list[float]]) -> None:
    run, weights = whole
    assert saved(run, "ema") == pytest.approx(recursion(weights, 0.1), rel=1e-5)
    assert saved(run, "ema_short") == pytest.approx(recursion(weights, 0.05), rel=1e-5)
    found = snapshots_of(run)
    assert [(s.step, s.std) for s in found] == [(n, std) for n in range(2, STEPS + 1, 2) for std in (0.05, 0.1)]
    expected = {s.path.name: recursion(weights[: s.step], s.std) for s in found}
    assert contents(run) == pytest.approx(expected, rel=1e-5)


def test_any_length_can_be_made_afterwards(whole: tuple[Path, list[float]], caplog: pytest.LogCaptureFixture) -> None:
    run, weights = whole
    assert saved(run, "power_0.1") == saved(run, "ema") and saved(run, "power_0.050") == saved(run, "ema_short")
    for std in (0.07, 0.13, 0.2):
        assert saved(run, f"power_{std}") == pytest.approx(recursion(weights, std), abs=2e-3)
    assert abs(recursion(weights, 0.13) - recursion(weights, 0.1)) > 5e-3
    ended: list[tuple[str, float, float | None]] = []

    class Watched(Progress):
        def leave(self) -> None:
            ended.append((self.phase.name, self.phase.done, self.phase.total))
            super().leave()

    with caplog.at_level(logging.INFO, "diffusion_lit"), activated(Watched("a test", None, "")):
        saved(run, "power_0.2")
    assert "of 30 snapshots, its profile is off by 2" in caplog.text
    assert ended == [("averaging", 32, 32)], "the snapshots and both averages of the checkpoint"


def test_a_resumed_run_has_just_the_snapshots_of_one_that_was_not_interrupted(
    whole: tuple[Path, list[float]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path / "first", 11)
    fit(tmp_path / "second", STEPS, tmp_path / "first" / "checkpoints" / "last.ckpt")
    assert "snapshots" not in caplog.text  # none is missing
    assert contents(tmp_path / "second") == contents(whole[0])
    [one, other] = (Snapshot(tmp_path / run, 0.1, 4).path.stat() for run in ("first", "second"))
    assert one.st_ino == other.st_ino  # no second copy
    assert saved(tmp_path / "second", "power_0.2") == saved(whole[0], "power_0.2")

    fit(tmp_path / "first", STEPS)  # steps beyond the checkpoint that is then resumed, in the same folder
    early = tmp_path / "first" / "checkpoints" / "early.ckpt"
    _, lightning = fit(tmp_path / "early", 11)
    lightning.save_checkpoint(early)
    again = trainer(tmp_path / "first", *averages(tmp_path / "first"), max_steps=13, max_epochs=-1)
    again.fit(Line(), loader(), ckpt_path=early)
    assert [s.step for s in snapshots_of(tmp_path / "first")] == [n for n in range(2, 13, 2) for _ in range(2)]


def test_lost_snapshots_are_said_and_damaged_ones_refused(
    whole: tuple[Path, list[float]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    path = Snapshot(run, 0.05, 8).path
    content = bytearray(path.read_bytes())
    at = content.find(bytes(torch.tensor(contents(run)[path.name]).numpy().tobytes()))
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: the checksum"):
        saved(run, "power_0.2")
    path.unlink()
    with pytest.raises(ValueError, match=f"1 of 30 snapshots .* missing, such as .*{path.name}: put them back"):
        saved(run, "power_0.2")
    with caplog.at_level(logging.WARNING, "diffusion_lit"):
        module, _ = fit(tmp_path / "more", STEPS + 1, run / "checkpoints" / "last.ckpt")
    assert "1 of 16 snapshots of the average of length 0.05 are not in" in caplog.text
    expected = recursion(whole[1] + module.trained, 0.2)
    assert saved(tmp_path / "more", "power_0.2") == pytest.approx(expected, abs=2e-3)


def test_what_cannot_be_made_is_refused_with_the_remedy(whole: tuple[Path, list[float]], tmp_path: Path) -> None:
    fit(tmp_path, 8, every_n_steps=4)
    with pytest.raises(ValueError, match=r"length 0\.25 cannot be made of 2 snapshots.*off by 73%.*near 0\.05, 0\.1"):
        saved(tmp_path, "power_0.25")
    with pytest.raises(ValueError, match=r"power_0\.4"):
        saved(tmp_path, "power_0.4")
    with pytest.raises(ValueError, match="ema_slow; use weights=ema or ema_short or raw or power_LENGTH"):
        saved(tmp_path, "ema_slow")
    plain, last = trainer(tmp_path, EMA(0.5), max_steps=2), tmp_path / "checkpoints" / "last.ckpt"
    plain.fit(Line(), loader())
    plain.save_checkpoint(last)
    with pytest.raises(ValueError, match=r"has no power-function averages.*callback=\[default,power_ema\]"):
        saved(tmp_path, "power_0.1")
    with pytest.raises(ValueError, match=r"length 0\.1 in mid-training: in the checkpoint it is not a power-function"):
        trainer(tmp_path, PowerEMA(0.1, str(tmp_path)), max_steps=4).fit(Line(), loader(), ckpt_path=last)
    other = whole[0] / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"length 0\.2 in mid-training: in the checkpoint it is of length 0\.1"):
        trainer(tmp_path, PowerEMA(0.2, str(tmp_path)), max_steps=40).fit(Line(), loader(), ckpt_path=other)


def test_a_checkpoint_may_be_named_from_its_own_folder(
    whole: tuple[Path, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = whole[0] / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    monkeypatch.chdir(file.parent)
    made = choose_weights(checkpoint, "power_0.07", Path("last.ckpt"))
    assert float(made["layer.weight"]) == saved(whole[0], "power_0.07")


def test_an_average_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    large = {"layer.weight": torch.tensor([[0.0, 1e5, 1.0]])}
    Snapshot(tmp_path, 0.1, 1).write(large)
    with pytest.raises(FloatingPointError, match=r"layer\.weight .* not finite in torch\.float16 at step 2"):
        Snapshot(tmp_path, 0.1, 2).write({name: w.half() for name, w in large.items()})
    assert [snapshot.step for snapshot in snapshots_of(tmp_path)] == [1]


def test_one_snapshot_for_each_step_of_an_accumulation(tmp_path: Path) -> None:
    average = PowerEMA(0.1, str(tmp_path), every_n_steps=1)
    trainer(tmp_path, average, max_steps=3, accumulate_grad_batches=2).fit(Line(), loader())
    assert average.steps == [snapshot.step for snapshot in snapshots_of(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("max_steps", "words"),
    [(9, ", 2 in all: 4.0 MiB"), (4, ", 1 in all: 2.0 MiB"), (3, ""), (-1, "")],
)
def test_the_size_of_snapshots_is_said(
    max_steps: int, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a million weights in float16."""
    lightning: Any = SimpleNamespace(global_step=0, max_steps=max_steps, is_global_zero=True, ckpt_path=None)
    module = Line()
    module.more = torch.nn.Parameter(torch.zeros(2**20 - 1))
    with caplog.at_level(logging.INFO, "diffusion_lit"):
        PowerEMA(0.1, str(tmp_path), every_n_steps=4).on_train_start(lightning, module)
    expected = f"snapshots of the average of length 0.1: 2.0 MiB each, every 4 steps{words}"
    assert caplog.messages == [expected]


def test_a_snapshot_is_read_only_as_what_it_is(tmp_path: Path) -> None:
    weights = {"layer.weight": torch.ones(1, 1)}
    Snapshot(tmp_path, 0.1, 1).write(weights)
    assert Snapshot(tmp_path, 0.1, 1).read(weights) == weights
    for other in (Snapshot(tmp_path, 0.2, 1), Snapshot(tmp_path, 0.1, 2)):
        shutil.copy(Snapshot(tmp_path, 0.1, 1).path, other.path)
        with pytest.raises(ValueError, match=f"{other.path.name} is not the snapshot that its name says"):
            other.read(weights)
    torch.save({"std": 0.1, "step": 1, "weights": None}, Snapshot(tmp_path, 0.1, 1).path)
    with pytest.raises(ValueError, match="is not the snapshot that its name says"):
        Snapshot(tmp_path, 0.1, 1).read(weights)
    Snapshot(tmp_path, 0.1, 3).write(weights)
    for names, alone in ((["layer.weight", "layer.bias"], "layer.bias"), ([], "layer.weight")):
        with pytest.raises(ValueError, match=rf"is of another model: {alone} is in one of both alone"):
            Snapshot(tmp_path, 0.1, 3).read(names)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"std": 0.5}, "std of the average ema .*got 0.5"),
        ({"every_n_steps": 0}, "every_n"),
        ({"dtype": "int8"}, "int8"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PowerEMA(**{"std": 0.1, "folder": "run", **options})


def test_two_averages_of_one_name_or_length_are_refused(tmp_path: Path) -> None:
    for pair, words in (
        ([EMA(0.9), PowerEMA(0.1, str(tmp_path))], r"overwrite each other.*callback\.ema=null"),
        ([PowerEMA(0.1, str(tmp_path)), PowerEMA(0.1, str(tmp_path), name="ema_2")], "must differ in their std"),
    ):
        with pytest.raises(ValueError, match=words):
            trainer(tmp_path, *pair, max_steps=1).fit(Line(), loader())
