"""Nothing that is not finite is saved, or called good."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lit.callback import EMA, LastCheckpoint, NaNGuard
from diffusion_lit.checkpoint import damage, load_checkpoint
from tests.launch import train_in

OPTIONS = ("callback.fid=null", "callback.sample_grid=null", "trainer.max_steps=12", "trainer.val_check_interval=3")


class PoisonGradient(Callback):
    """Makes a gradient not a number while the loss is finite."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step in self.steps:
            gradient = next(pl_module.parameters()).grad
            assert gradient is not None
            gradient.view(-1)[0] = torch.nan


class PoisonAverage(Callback):
    """Makes the average infinite after a step, while the weights stay as they are."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 5:
            [ema] = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
            next(iter(ema.average.values())).fill_(torch.inf)


def poison(*steps: int) -> str:
    return f"+callback.poison={{_target_: tests.callback.test_nan_guard.PoisonGradient, steps: {list(steps)}}}"


def finite(path: Path) -> bool:
    checkpoint = load_checkpoint(path)
    values = [*checkpoint["state_dict"].values(), *checkpoint["ema"].values()]
    values += [v for state in checkpoint["optimizer_states"][0]["state"].values() for v in state.values()]
    return all(bool(value.isfinite().all()) for value in values if isinstance(value, Tensor))


@pytest.mark.parametrize("every_n_steps", [1, 100])
def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path, every_n_steps: int) -> None:
    """Whether the verdict is read at once, or only because a checkpoint is to be written."""
    said = r"(?s)the gradient was not finite at step 5, whose times t were 0\.0\d+ to (0\.9\d+|1) \(learning rate .*"
    with pytest.raises(FloatingPointError, match=said + r"Verified checkpoints:\n.*best\.ckpt\n.*last\.ckpt") as caught:
        train_in(tmp_path, *OPTIONS, poison(4), f"callback.nan_guard.every_n_steps={every_n_steps}")
    named = [Path(line.strip()) for line in str(caught.value).splitlines() if line.endswith(".ckpt")]
    assert len(named) == 2 and all(finite(path) and damage(path) is None for path in named)
    assert load_checkpoint(tmp_path)["global_step"] == 3


def test_the_verdict_is_read_by_optimizer_steps_in_short_epochs_too(tmp_path: Path) -> None:
    """Four steps an epoch, and a reading every sixth."""
    options = ("callback.nan_guard.every_n_steps=6", "trainer.val_check_interval=100")
    with pytest.raises(FloatingPointError, match="not finite at step 5") as caught:
        train_in(tmp_path, *OPTIONS, poison(4), *options)
    assert "none was written yet" in str(caught.value)


def test_an_average_that_is_not_finite_is_noticed_and_not_saved(tmp_path: Path) -> None:
    poisoned = "+callback.poison._target_=tests.callback.test_nan_guard.PoisonAverage"
    with pytest.raises(FloatingPointError, match="ema in the checkpoint would not be finite"):
        train_in(tmp_path / "saved", *OPTIONS, poisoned)
    with pytest.raises(FloatingPointError, match="validation loss, of the averaged weights, is not finite"):
        train_in(tmp_path / "seen", *OPTIONS, poisoned, "callback.last_checkpoint.every_n_steps=100")
    for path in tmp_path.rglob("*.ckpt"):
        assert finite(path) and load_checkpoint(path)["global_step"] == 3


def test_a_step_can_be_left_out(tmp_path: Path) -> None:
    """Weights, average and optimizer are then those before it, and training continues."""
    options = ("callback.nan_guard.skip=2", "callback.ema.decay=0", "lr_schedule=constant")
    train_in(tmp_path / "left out", *OPTIONS, *options, poison(3), "trainer.max_steps=4")
    train_in(tmp_path / "before", *OPTIONS, *options, "trainer.max_steps=3")
    left, before = (load_checkpoint(tmp_path / name) for name in ("left out", "before"))
    assert (left["global_step"], before["global_step"]) == (4, 3)
    assert all(torch.equal(w, left["state_dict"][name]) for name, w in before["state_dict"].items())
    for index, state in before["optimizer_states"][0]["state"].items():
        assert all(torch.equal(v, left["optimizer_states"][0]["state"][index][key]) for key, v in state.items())
    trainer = train_in(tmp_path / "more", *OPTIONS, *options, poison(3, 4, 8), "trainer.max_steps=10")
    assert trainer is not None and trainer.global_step == 10 and finite(tmp_path / "more")


def test_too_many_in_a_row_end_training(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="not finite for 3 steps in a row"):
        train_in(tmp_path, *OPTIONS, poison(4, 5, 6, 7), "callback.nan_guard.skip=2")
    assert finite(tmp_path)


@pytest.mark.parametrize(
    ("options", "bad", "ended", "said"),
    [
        (
            {"every_n_steps": 1},
            [5, 6],
            5,
            r"at step 5, whose times t were 0\.05 to 0\.55 \(learning rate 0\.001, 0\.5, precision 32-true\)",
        ),
        ({"every_n_steps": 3}, [4, 5], 6, r"not finite at step 4, whose times t were 0\.04 to 0\.54 "),
        ({"every_n_steps": 100}, [4, 5], None, "not finite at step 4,"),  # read when a checkpoint is written
        ({"every_n_steps": 1}, [], None, None),
        ({"skip": 2}, [1, 2, 5, 6], None, None),
        ({"skip": 2}, [2, 4, 5, 6, 7], 6, "not finite for 3 steps in a row"),
        ({"skip": 2, "precision": "16-mixed"}, [2, 4, 5, 6, 7], None, None),  # whose scaler does that itself
    ],
)
def test_where_training_stops(options: dict[str, Any], bad: list[int], ended: int | None, said: str | None) -> None:
    """Of 8 steps, of which step n has times n / 100 and more."""
    given = {"precision": "32-true", **options}
    groups = SimpleNamespace(param_groups=[{"lr": 0.001}, {"lr": 0.5}])
    trainer: Any = SimpleNamespace(
        **{"checkpoint_callbacks": [], "ckpt_path": None, "optimizers": [groups], "precision": given.pop("precision")}
    )
    zeroed: list[int] = []
    optimizer: Any = SimpleNamespace(zero_grad=lambda: zeroed.append(step))
    guard = NaNGuard(**given)
    with pytest.raises(FloatingPointError, match=said) if said else nullcontext():
        for step in range(1, 9):
            trainer.global_step = step - 1
            module: Any = SimpleNamespace(times=(torch.tensor(step / 100), torch.tensor(0.5 + step / 100)))
            norm = torch.tensor([torch.nan, torch.inf][step % 2] if step in bad else 1.0)
            guard.on_gradient(trainer, module, optimizer, norm)
        step = 9
        guard.check(trainer)
    assert step == (ended or 9)
    left_out = bool(guard.skip) and trainer.precision != "16-mixed"
    assert zeroed == [n for n in bad if left_out and n < (ended or 9)]


def test_the_verdict_is_read_before_a_validation_a_checkpoint_and_the_end() -> None:
    trainer: Any = SimpleNamespace(
        **{"checkpoint_callbacks": [], "ckpt_path": None, "optimizers": [], "precision": "32-true", "callbacks": []},
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
    )
    module: Any = None
    guard, good = NaNGuard(), NaNGuard()
    guard.first_bad = torch.tensor([5.0, 0.1, 0.9])
    good.first_bad = torch.full((3,), torch.inf)
    for read in (
        lambda guard: guard.on_validation_start(trainer, module),
        lambda guard: guard.on_train_end(trainer, module),
        lambda guard: guard.on_save_checkpoint(trainer, module, {}),
    ):
        read(good)
        with pytest.raises(FloatingPointError, match="not finite at step 5"):
            read(guard)


@pytest.mark.parametrize(
    ("loss", "checking", "stops"),
    [(torch.nan, False, True), (torch.inf, False, True), (torch.nan, True, False), (0.0, False, False), (None,) * 3],
)
def test_a_validation_loss_that_is_not_finite_ends_training(loss: float | None, checking: bool, stops: bool) -> None:
    metrics = {} if loss is None else {"val/loss": torch.tensor(loss)}
    trainer: Any = SimpleNamespace(
        **{"checkpoint_callbacks": [], "ckpt_path": None, "optimizers": [], "precision": "32-true"},
        callback_metrics=metrics,
        sanity_checking=checking,
    )
    module: Any = None
    with pytest.raises(FloatingPointError, match="validation loss") if stops else nullcontext():
        NaNGuard().on_validation_end(trainer, module)


def test_a_checkpoint_that_cannot_be_read_is_not_called_good(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), 1)
    trainer: Any = SimpleNamespace(checkpoint_callbacks=[last], ckpt_path=None)
    assert NaNGuard().good_checkpoints(trainer) == []
    last.path.write_bytes(b"cut short")
    assert NaNGuard().good_checkpoints(trainer) == []


def test_what_a_run_began_with_is_good_and_named_once(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), 1)
    parent = tmp_path / "parent.ckpt"
    torch.save({"config": {"seed": 1}, "state_dict": {}}, parent)
    trainer: Any = SimpleNamespace(checkpoint_callbacks=[last], ckpt_path=parent)
    assert NaNGuard().good_checkpoints(trainer) == [parent], "before the first is written"
    last.path.write_bytes(parent.read_bytes())
    assert NaNGuard().good_checkpoints(trainer) == [last.path, parent]
    trainer.ckpt_path = str(last.path)
    assert NaNGuard().good_checkpoints(trainer) == [last.path]


def test_no_rank_saves_where_another_would_save_what_is_not_finite() -> None:
    asked = []

    def reduce(decision: bool, all: bool) -> bool:
        asked.append((decision, all))
        return False

    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(reduce_boolean_decision=reduce),
        callbacks=[],
        checkpoint_callbacks=[],
        ckpt_path=None,
        optimizers=[],
        precision="32-true",
    )
    module: Any = None
    with pytest.raises(FloatingPointError, match="what another process would save in the checkpoint"):
        NaNGuard().on_save_checkpoint(trainer, module, {"state_dict": {"w": torch.ones(2), "empty": torch.ones(0)}})
    with pytest.raises(FloatingPointError, match="state_dict in the checkpoint"):
        NaNGuard().on_save_checkpoint(trainer, module, {"state_dict": {"w": torch.tensor([1.0, torch.nan])}})
    with pytest.raises(FloatingPointError, match="optimizer_states in the checkpoint"):
        states = [{"state": {0: {"step": torch.tensor(3), "moments": (torch.ones(1), [torch.tensor(torch.inf)])}}}]
        NaNGuard().on_save_checkpoint(trainer, module, {"state_dict": {}, "optimizer_states": states})
    assert asked == [(True, True), (False, True), (False, True)]


@pytest.mark.parametrize("build", [lambda: NaNGuard(0), lambda: NaNGuard(1, -1)])
def test_settings_out_of_range_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match=r"callback\.nan_guard needs"):
        build()
    assert NaNGuard().skip == 0
