"""One line of progress for the whole run."""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar

from diffusion_lit.budget import budget_of, steps_an_epoch
from diffusion_lit.module import DiffusionModule
from diffusion_lit.terminal.pace import Pace, remedy, too_long
from diffusion_lit.terminal.progress import Progress, Work, activated, progress
from diffusion_lit.terminal.status_line import clock_time

__all__ = ["ProgressBar"]

log = logging.getLogger(__name__)

FIRST = "first step"
"""What training is called until it has taken one, which can take long."""
ONCE = ("real images",)
"""Phases that do not come again."""
EXPECTED_AFTER = 5.0  # seconds of training after which it is said how long it takes: shorter runs are spared it


class ProgressBar(LightningProgressBar):
    """Optimizer steps done, time left, the newest losses, images a second over all ranks, and the share of waiting.

    A bar on a terminal, elsewhere a line every so often, or as `terminal.screen.choose_progress` says. The time left
    counts steps by their newest durations without the first one's, and validation, pictures and figures that are still
    to come by their own; it has a + until the first validation has been timed. `data` is the share of waiting for
    images in the time of steps. Lightning's own bar starts anew at each epoch, which for a small dataset is every few
    seconds.

    Args:
        refresh_seconds: the least time between two updates of the bar.
        plain_seconds: seconds between two lines of progress where no bar is drawn.
    """

    def __init__(self, refresh_seconds: float = 0.5, plain_seconds: float = 30.0) -> None:
        super().__init__()
        self.refresh_seconds, self.plain_seconds, self.enabled = refresh_seconds, plain_seconds, True
        self.progress: Progress | None = None
        self.shown, self.validating = ExitStack(), ExitStack()

    def disable(self) -> None:
        """Called by Lightning on every rank but the first."""
        self.enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        end, step = trainer.estimated_stepping_batches, trainer.global_step
        total = None if math.isinf(end) else float(end)
        self.progress = Progress(FIRST, total, "steps", step, self.refresh_seconds, self.plain_seconds)
        self.progress.describe = lambda: (self.time_left(trainer), self.figures(trainer))
        self.shown.enter_context(activated(self.progress))
        self.training = Work(self.progress, self.progress.phase)
        self.pace, self.newest_step, self.expected = Pace(), step, False
        self.images_a_step = 0
        self.working = 0.0  # seconds
        self.step_ended = self.now()
        self.progress.show()

    def now(self) -> float:
        """The time in seconds, which stands still while training is interrupted by another phase."""
        assert self.progress is not None
        return time.monotonic() - self.progress.phases[0].within

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (progress := self.progress) is None:
            return
        if trainer.global_step == self.newest_step:  # in the middle of an accumulation
            return
        self.time_phases(progress)
        progress.phases[0].name = "training"
        now = self.now()
        self.pace.add_step(now - self.step_ended)
        self.working += now - self.step_ended
        self.step_ended, self.newest_step = now, trainer.global_step
        self.images_a_step = len(batch) * trainer.world_size * trainer.accumulate_grad_batches
        final_step = self.final_step(trainer)
        progress.phases[0].total = None if math.isinf(final_step) else final_step
        if not self.expected and self.pace.seconds_a_step is not None and self.working > EXPECTED_AFTER:
            self.expected = True
            self.expect(trainer, pl_module, self.pace.seconds_a_step)
        self.training.reach(trainer.global_step)

    def time_phases(self, progress: Progress) -> None:
        """Take into account what came between the newest step and the next."""
        for name in progress.seconds.keys() - set(ONCE):
            self.pace.add_between(name, progress.seconds.pop(name), self.newest_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is not None and not trainer.sanity_checking:
            total = sum(trainer.num_val_batches)
            phase = progress("validation", None if math.isinf(total) else total, "batches")
            self.validation = self.validating.enter_context(phase)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.progress is not None and not trainer.sanity_checking:
            self.validation.advance(1)

    def on_validation_end(self, *_: Any) -> None:
        self.validating.close()

    def on_train_end(self, *_: Any) -> None:
        self.shown.close()  # with the last state, whatever phase it was cut in
        self.progress = None

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()

    def final_step(self, trainer: Trainer) -> float:
        """The optimizer step at which training ends, as far as it can be known."""
        return budget_of(trainer).final_step(trainer.global_step, steps_an_epoch(trainer), self.images_a_step)

    def seconds_left(self, trainer: Trainer) -> float | None:
        budget, seconds = budget_of(trainer), None
        if self.progress is not None:
            self.time_phases(self.progress)
        if self.images_a_step:
            seconds = self.pace.left(trainer.global_step, self.final_step(trainer))
        if (minutes := budget.limits.get("max_minutes")) is not None:
            limit = max(0.0, minutes - budget.minutes) * 60
            seconds = limit if seconds is None else min(seconds, limit)
        return seconds

    def time_left(self, trainer: Trainer) -> str:
        if (seconds := self.seconds_left(trainer)) is None or seconds <= 0:
            return ""
        untimed = trainer.enable_validation and "validation" not in self.pace.between
        return f"{clock_time(seconds)}{'+' if untimed else ''} left"

    def figures(self, trainer: Trainer) -> Sequence[str]:
        """The newest losses, images a second, and the share of time that steps wait for images."""
        metrics = trainer.callback_metrics
        losses = [("loss", metrics.get("train/loss")), ("val/loss", metrics.get("val/loss"))]
        shown = [f"{name} {float(value):.4g}" for name, value in losses if value is not None]
        if (seconds := self.pace.seconds_a_step) is not None:
            shown.append(f"{self.images_a_step / max(seconds, 1e-9):.0f} img/s")
        if (waiting := metrics.get("throughput/data_wait")) is not None:
            shown.append(f"data {float(waiting):.0%}")
        return shown

    def expect(self, trainer: Trainer, pl_module: LightningModule, seconds_a_step: float) -> None:
        """Say, once, how long training takes; and where nobody can mean that, what to lower."""
        if (seconds := self.seconds_left(trainer)) is None:
            return
        assert isinstance(pl_module, DiffusionModule)
        on_gpu, denoiser = pl_module.device.type != "cpu", pl_module.denoiser
        if too_long(seconds, on_gpu):
            size = sum(p.numel() for p in denoiser.parameters())
            log.warning(remedy(seconds, seconds_a_step, size, denoiser.image_shape[1:], on_gpu))
            return
        log.info(
            "%.2g s a step: the rest takes about %s, besides validation, pictures and figures",
            seconds_a_step,
            clock_time(seconds),
        )
