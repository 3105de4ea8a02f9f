"""How long to train, in four units, of which any may be given."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.budget import Budget, budget_of
from diffusion_lit.checkpoint import load_checkpoint
from tests.launch import train_in

QUIET = ("callback.fid=null", "callback.sample_grid=null", "callback.best_checkpoint=null", "trainer.max_steps=null")


class Shares(Callback):
    """Writes down how much of the budget is used, as a learning-rate schedule sees it."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.shares.append(budget_of(trainer).share(trainer))


class Minutes(Shares):
    """A clock on which each step takes a minute; it is never set back."""

    now = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        super().on_train_batch_start(trainer, pl_module)
        Minutes.now += 60


@pytest.mark.parametrize(
    "limit, steps, shares",
    [
        ("max_steps=5", 5, [0, 1 / 5, 2 / 5, 3 / 5, 4 / 5]),
        ("max_epochs=2", 8, [i / 8 for i in range(8)]),
        ("max_images=200", 4, [0, 0.3, 0.6, 0.9]),
        ("max_minutes=0.0001", 1, [0]),
    ],
)
def test_each_limit_ends_training(limit: str, steps: int, shares: list[float], tmp_path: Path) -> None:
    """288 images are four steps of 60 an epoch."""
    probe = "+callback.probe._target_=tests.test_budget.Shares"
    trainer = train_in(tmp_path, *QUIET, f"trainer.{limit}", probe)
    assert trainer is not None and trainer.global_step == steps
    [seen] = [callback for callback in trainer.callbacks if isinstance(callback, Shares)]  # type: ignore[attr-defined]
    assert seen.shares == pytest.approx(shares)
    assert load_checkpoint(tmp_path)["callbacks"]["Budget"]["images"] == 60 * steps


def test_a_rate_that_follows_the_budget_follows_a_larger_one(tmp_path: Path) -> None:
    """More steps after a finished `warmup_cosine` are trained with the rate that the longer plan gives them."""
    options = (*QUIET, "lr_schedule=warmup_cosine", "lr_schedule.num_steps=0", "optimizer.lr=1e-3")
    train_in(tmp_path / "short", *options, "trainer.max_steps=4")
    train_in(tmp_path / "long", *options, "trainer.max_steps=8", f"resume={tmp_path / 'short'}")
    rate = load_checkpoint(tmp_path / "long")["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(1e-3 * (1 + math.cos(math.pi * 7 / 8)) / 2)


def test_a_rate_falls_to_the_end_of_the_minutes_also_over_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes, an hour of pause, and two minutes more of what are now four."""
    monkeypatch.setattr("diffusion_lit.budget.time", SimpleNamespace(monotonic=lambda: Minutes.now))
    options = (*QUIET, "lr_schedule=warmup_cosine", "lr_schedule.num_steps=0", "optimizer.lr=1e-3")
    options += ("+callback.probe._target_=tests.test_budget.Minutes",)
    shares, resume = [], "resume=null"
    for minutes in (2, 4):
        trainer = train_in(tmp_path / str(minutes), *options, f"trainer.max_minutes={minutes}", resume)
        assert trainer is not None and trainer.global_step == minutes == budget_of(trainer).minutes
        shares += [c.shares for c in trainer.callbacks if isinstance(c, Minutes)]  # type: ignore[attr-defined]
        Minutes.now, resume = Minutes.now + 3600, f"resume={tmp_path / '2'}"
    assert shares == [[0, 1 / 2], [2 / 4, 3 / 4]]
    rate = load_checkpoint(tmp_path / "4")["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(1e-3 * (1 + math.cos(math.pi * 3 / 4)) / 2)


def test_images_and_minutes_are_counted_over_resumptions(tmp_path: Path) -> None:
    train_in(tmp_path / "a", *QUIET, "trainer.max_images=120")
    trainer = train_in(tmp_path / "b", *QUIET, "trainer.max_images=240", f"resume={tmp_path / 'a'}")
    assert trainer is not None and trainer.global_step == 4 and budget_of(trainer).images == 240


@pytest.mark.parametrize(
    "limits, words",
    [({}, "nothing says how long to train"), ({"max_steps": 0}, "max_steps must be positive"),
     ({"max_minutes": -2}, "max_minutes must be positive"), ({"max_images": -1}, "nothing says")],
)  # fmt: skip
def test_limits_that_mean_nothing_are_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget(**limits)
