"""How long to train, in four units, of which any may be given."""

import math
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.budget import Budget, budget_of, doubled, limits_in
from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.page.commands import commands_of
from diffusion_lit.run.past import read_run
from tests.launch import train_in
from tests.repeats import slow_but

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
    "limit",
    slow_but(["max_epochs=1", "max_images=150"], ["max_steps=3", "max_epochs=1", "max_images=150", "max_minutes=2"]),
)
def test_the_command_that_is_printed_trains_on(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end, for a run that is finished, and on its page it is one command, whatever limits the run."""
    monkeypatch.setattr("diffusion_lit.budget.time", SimpleNamespace(monotonic=lambda: Minutes.now))
    probe = "+callback.probe._target_=tests.test_budget.Minutes"
    trainer = train_in(tmp_path / "run", *QUIET, f"trainer.{limit}", probe, "trainer.log_every_n_steps=3")
    assert trainer is not None and read_run(tmp_path / "run").step == trainer.global_step, "also off the figures' steps"
    ended = capsys.readouterr().out.splitlines()[-1]
    assert train_in(tmp_path / "again", f"resume={tmp_path / 'run'}", "allow=[tests]", tiny=()) is None
    finished = capsys.readouterr().out.splitlines()[-1]
    [page] = [line for purpose, line in commands_of(read_run(tmp_path / "run")) if purpose.startswith("Train on")]
    words = shlex.split(page.partition(" && ")[2])
    assert words.pop(words.index("allow=[tests]"))  # which the other two have where a command has trained
    assert shlex.split(ended) == shlex.split(finished) == words
    longer = train_in(tmp_path / "longer", *words[3:], "allow=[tests]", tiny=())
    steps = {"max_images": 5}.get(limit.partition("=")[0], 2 * trainer.global_step)
    assert longer is not None and longer.global_step == steps


def test_a_run_by_epochs_trains_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    """Its last checkpoint is of the last step, and not of an epoch that is over, after which one would be left out."""
    once = train_in(tmp_path / "once", *QUIET, "trainer.max_epochs=2")
    train_in(tmp_path / "half", *QUIET, "trainer.max_epochs=1")
    twice = train_in(tmp_path / "twice", f"resume={tmp_path / 'half'}", "trainer.max_epochs=2", tiny=())
    assert once is not None and twice is not None and once.global_step == twice.global_step == 8
    ends = [load_checkpoint(tmp_path / name)["state_dict"] for name in ("once", "twice")]
    assert all(torch.equal(w, ends[1][name]) for name, w in ends[0].items())


def test_twice_as_long_is_always_longer() -> None:
    """Also where a step, or a lower limit of a resume, went far past a limit."""
    limits = {"max_steps": 3, "max_minutes": 0.25}
    assert doubled(limits, {"max_steps": 5}) == {"trainer.max_steps": 6, "trainer.max_minutes": 0.5}
    assert doubled(limits, {"max_steps": 6, "max_minutes": 1.0}) == {"trainer.max_steps": 12, "trainer.max_minutes": 2}
    said = {"max_steps": 7, "max_epochs": None, "max_images": -1, "max_minutes": "1", "devices": 2}
    assert limits_in(said) == {"max_steps": 7}
    assert limits_in(None) == limits_in({"max_steps": True, "max_images": math.inf}) == {}


@pytest.mark.parametrize(
    "limits, words",
    [({}, "nothing says how long to train"), ({"max_steps": 0}, "max_steps must be positive"),
     ({"max_minutes": -2}, "max_minutes must be positive"), ({"max_images": -1}, "nothing says")],
)  # fmt: skip
def test_limits_that_mean_nothing_are_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget(**limits)
