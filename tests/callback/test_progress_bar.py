"""What a run's line of progress says, by the test's clock. `tests/terminal/test_run_terminal.py` has it on a screen."""

import logging
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusion_lit.budget import Budget
from diffusion_lit.callback import ProgressBar, progress
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.loss import MSELoss
from diffusion_lit.module import DiffusionModule
from diffusion_lit.parameterization import VParameterization
from diffusion_lit.schedule import LinearSchedule
from diffusion_lit.terminal.progress import ACTIVE, Progress
from diffusion_lit.terminal.progress import progress as phase_of
from diffusion_lit.terminal.screen import SCREEN
from diffusion_lit.weighting import UnitWeighting
from tests.networks import NETWORKS

BATCH = range(4)
"""Of so many images."""


class Run:
    """A run of 10 steps from the step `step` on, of two processes that each take two batches a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int = 0, total: float = 10, **limits: Any) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(SCREEN, "mode", "plain")
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.seconds))
        monkeypatch.setattr(progress, "Progress", partial(Progress, clock=lambda: self.seconds))
        denoiser = Denoiser(NETWORKS["unet"].build(), LinearSchedule(), VParameterization())
        self.module = DiffusionModule(denoiser, MSELoss(UniformDensity(), UnitWeighting()), None, None)  # type: ignore[arg-type]
        self.trainer: Any = SimpleNamespace(
            estimated_stepping_batches=total,
            global_step=step,
            world_size=2,
            accumulate_grad_batches=2,
            num_training_batches=1000,
            num_val_batches=[3, 4],
            sanity_checking=False,
            enable_validation=True,
            callback_metrics={},
            callbacks=[Budget(**limits or {"max_steps": total})],
        )
        self.bar = ProgressBar(refresh_seconds=0, plain_seconds=0)
        self.bar.on_train_start(self.trainer, self.module)

    def train(self, seconds: float, steps: int = 1) -> None:
        """So many steps of so many seconds, the first of whose batches end after half of them."""
        for _ in range(steps):
            for step in (self.trainer.global_step, self.trainer.global_step + 1):
                self.seconds += seconds / 2
                self.trainer.global_step = step
                self.bar.on_train_batch_end(self.trainer, self.module, None, BATCH, 0)

    def validate(self, seconds: float) -> None:
        self.bar.on_validation_start(self.trainer, self.module)
        for _ in range(7):
            self.seconds += seconds / 7
            self.bar.on_validation_batch_end(self.trainer)
        self.bar.on_validation_end()

    @property
    def left(self) -> str:
        return self.bar.time_left(self.trainer)


def test_steps_and_what_comes_between_them_are_timed_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step, of 30 s, is no measure of those of 2 s; nor is a validation of 14 s, which comes once more."""
    run = Run(monkeypatch)
    assert capsys.readouterr().err.split(" ", 1)[1] == "first step 0/10 steps\n"
    run.train(30)
    assert run.left == "" and "training 1/10 steps" in capsys.readouterr().err
    run.train(2, steps=4)
    assert run.left == "0:10+ left" and run.bar.working == 38
    capsys.readouterr()
    run.validate(14)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert [line.partition(",")[0] for line in lines] == [
        *(f"validation {i}/7 batches" for i in range(8)),
        "training 5/10 steps",
    ]
    assert run.left == "0:24 left"
    run.train(2)
    assert run.left == "0:22 left" and run.bar.working == 40, "the next step is not thought to have taken 16 s"
    with phase_of("real images", 1, "images"):
        run.seconds += 100
    run.train(2)
    assert run.left == "0:20 left" and run.bar.pace.between.keys() == {"validation"}, "which come once"
    run.train(2, steps=3)
    assert run.left == "0:14 left", "of the validation after the last step"
    run.validate(14)
    assert run.left == ""
    run.bar.on_train_end()
    assert run.bar.progress is None and "training 10/10 steps" in capsys.readouterr().err.splitlines()[-1]


def test_a_phase_is_of_the_step_that_it_came_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the next step has ended before anything is shown."""
    run = Run(monkeypatch)
    assert run.bar.progress is not None
    run.bar.progress.mode = "none"
    run.train(2, steps=5)
    run.validate(14)
    run.train(2)
    assert run.bar.pace.between == {"validation": (pytest.approx(14), 5, 5)}
    run.bar.on_train_end()


def test_figures_stand_in_the_line_as_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images a second are those of all processes, and of all batches of a step: 2 x 2 x 4 in 2 s."""
    run = Run(monkeypatch)
    run.train(30)
    assert list(run.bar.figures(run.trainer)) == []
    run.train(2)
    assert list(run.bar.figures(run.trainer)) == ["8 img/s"]
    run.trainer.callback_metrics = {"val/loss": torch.tensor(0.25), "throughput/data_wait": torch.tensor(0.126)}
    assert list(run.bar.figures(run.trainer)) == ["val/loss 0.25", "8 img/s", "data 13%"]
    run.trainer.callback_metrics["train/loss"] = torch.tensor(0.123456)
    assert list(run.bar.figures(run.trainer))[:2] == ["loss 0.1235", "val/loss 0.25"]
    run.bar.on_train_end()


def test_how_long_it_takes_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After five seconds of training; runs that are shorter are spared it."""
    caplog.set_level(logging.INFO, "diffusion_lit")
    run = Run(monkeypatch, total=1000)
    run.train(1.02, steps=4)
    assert not caplog.messages
    run.train(1.02, steps=5)
    assert caplog.messages == ["1 s a step: the rest takes about 16:55, besides validation, pictures and figures"]
    run.bar.on_train_end()


def test_a_time_that_nobody_means_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(monkeypatch, total=10_000)
    run.train(10, steps=2)
    [record] = caplog.records
    size = sum(p.numel() for p in run.module.denoiser.parameters())
    assert record.levelno == logging.WARNING and "at 10 s a step this run takes about 1 d 03:46 more on the CPU" in (
        record.message
    )
    assert f"of {size:,} parameters" in record.message and "(8 x 8)" in record.message
    run.bar.on_train_end()


@pytest.mark.parametrize(
    "limits, left, total",
    [
        ({"max_steps": 500}, "0:06+ left", 500),
        ({"max_minutes": 0.075}, "0:03+ left", None),  # nobody knows at which step
        ({"max_steps": 500, "max_minutes": 0.075}, "0:03+ left", 500),
        ({"max_images": 16 * 499}, "0:04+ left", 499),
    ],
)
def test_what_ends_a_run_first_is_what_is_left(
    limits: dict[str, Any], left: str, total: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed at step 495."""
    run = Run(monkeypatch, step=495, total=limits.get("max_steps", math.inf), **limits)
    [budget] = run.trainer.callbacks
    budget.images, budget.minutes = 16 * 497, 0.025
    run.train(2, steps=2)
    assert run.left == left and run.bar.progress is not None
    assert run.bar.progress.phases[0].total == total and run.bar.progress.phases[0].initial == 495
    run.bar.on_exception()
    assert run.bar.progress is None and not ACTIVE


def test_a_run_that_is_cut_in_a_validation_ends_with_the_line_of_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(monkeypatch)
    run.train(60, steps=2)
    run.bar.on_validation_start(run.trainer, run.module)
    capsys.readouterr()
    run.bar.plain_seconds = 30
    run.bar.on_exception()
    assert not ACTIVE and [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == [
        "training 2/10 steps, 8:00+ left, 0 img/s"
    ]


def test_other_ranks_show_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(monkeypatch)
    run.bar.on_train_end()
    capsys.readouterr()
    run.bar.disable()
    run.bar.on_train_start(run.trainer, run.module)
    run.train(2, steps=2)
    run.validate(2)
    assert run.bar.progress is None and capsys.readouterr().err == ""


def test_the_sanity_check_is_no_validation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(monkeypatch)
    run.trainer.sanity_checking = True
    run.validate(5)
    assert "validation" not in capsys.readouterr().err and "validation" not in run.bar.pace.between
    run.bar.on_train_end()
