"""How long to train: steps, epochs, images or minutes, whichever comes first."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["Budget", "budget_of", "doubled", "limits_in", "steps_an_epoch", "whole_epochs"]

LIMITS = ("max_steps", "max_epochs", "max_images", "max_minutes")
AGREE_EVERY = 20  # steps between which several ranks compare their clocks


@dataclass(eq=False)
class Budget(Callback):
    """Ends training when any of its limits is reached; None, or -1, is no limit.

    Learning-rate schedules and the progress bar know by `share` how much of it is used. Images and minutes are counted
    over all resumptions of a run.

    Args:
        max_steps: optimizer steps.
        max_epochs: passes over the training images.
        max_images: images trained on, over all ranks; the step that reaches it is the last.
        max_minutes: minutes of training, validation included, by the first rank's clock.

    Raises:
        ValueError: if a limit is not positive, or there is none at all.
    """

    max_steps: int | None = None
    max_epochs: int | None = None
    max_images: int | None = None
    max_minutes: float | None = None
    images: int = field(default=0, init=False)
    """Trained on so far, by all ranks."""
    minutes: float = field(default=0.0, init=False)
    """Spent so far."""

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in LIMITS}
        for name, limit in limits.items():
            if limit is not None and limit != -1 and not 0 < limit < math.inf:
                raise ValueError(f"trainer.{name} must be positive and finite, or null for no limit, got {limit}")
        given = {name: limit for name, limit in limits.items() if limit not in (None, -1)}
        if not given:
            raise ValueError(f"nothing says how long to train: set one of {', '.join(f'trainer.{k}' for k in limits)}")
        self.limits: dict[str, float] = given

    def share(self, trainer: Trainer) -> float:
        """How much of the budget is used: 0 before the first step, 1 or more at the end."""
        done = self.done(trainer) | {"max_epochs": self.epochs(trainer)}
        return max(done[name] / limit for name, limit in self.limits.items())

    def done(self, trainer: Trainer) -> dict[str, float]:
        """What is trained so far, by the limit that it counts towards; epochs as far as they are whole."""
        loop = trainer.fit_loop
        current: Any = loop.epoch_progress.current
        return {
            "max_steps": trainer.global_step,
            "max_epochs": whole_epochs(current.processed, current.ready, loop.epoch_loop.batch_progress.is_last_batch),
            "max_images": self.images,
            "max_minutes": self.minutes,
        }

    def final_step(self, step: int, steps: float, images: float) -> float:
        """The optimizer step at which training ends; inf where only minutes limit it.

        Args:
            step: where training is.
            steps: an epoch's.
            images: a step's, over all ranks.
        """
        left = max(0.0, self.limits.get("max_images", math.inf) - self.images)
        ends = (
            self.limits.get("max_steps", math.inf),
            self.limits.get("max_epochs", math.inf) * steps,
            math.inf if math.isinf(left) else step + math.ceil(left / images),
        )
        return max(float(step), min(ends))

    def epochs(self, trainer: Trainer) -> float:
        """Epochs so far, the current one in part."""
        done, whole = trainer.fit_loop.epoch_loop.batch_progress.current.completed, trainer.num_training_batches
        return trainer.current_epoch + (min(done / whole, 1) if 0 < whole < float("inf") else 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began, self.minutes_before, self.last_step = time.monotonic(), self.minutes, trainer.global_step
        self.stop_at_limits(trainer)  # a run that was cut in its last validation has no step left

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch) * trainer.world_size
        if trainer.global_step == self.last_step:  # in the middle of an accumulation
            return
        self.last_step = trainer.global_step
        if trainer.world_size == 1 or trainer.global_step % AGREE_EVERY == 0:
            minutes = self.minutes_before + (time.monotonic() - self.began) / 60
            self.minutes = trainer.strategy.broadcast(minutes) if "max_minutes" in self.limits else minutes
        self.stop_at_limits(trainer)

    def stop_at_limits(self, trainer: Trainer) -> None:
        done = self.done(trainer)
        if any(done[name] >= limit for name, limit in self.limits.items() if name != "max_steps"):  # Lightning's
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "minutes": self.minutes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images, self.minutes = state_dict["images"], state_dict["minutes"]


def budget_of(trainer: Trainer) -> Budget:
    """The budget of a run; of a trainer without ours, what it was given itself."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    own = next((callback for callback in callbacks if isinstance(callback, Budget)), None)
    return own or Budget(trainer.max_steps, trainer.max_epochs or (1000 if trainer.max_steps == -1 else None))


def whole_epochs(processed: int, ready: int, is_last_batch: bool) -> int:
    """Epochs done, by Lightning's counts of those processed and begun, and whether the newest batch ends one."""
    return processed + (is_last_batch and ready > processed)


def limits_in(settings: object) -> dict[str, float]:
    """The limits that a run's recorded settings of its trainer have; what is not such settings has none."""
    known: dict[str, Any] = {name: settings.get(name) for name in LIMITS} if isinstance(settings, Mapping) else {}
    return {name: limit for name, limit in known.items() if type(limit) in (int, float) and 0 < limit < math.inf}


def doubled(limits: Mapping[str, float], done: Mapping[str, float]) -> dict[str, float]:
    """Settings of a trainer by which a run that has used up its budget trains on: twice as much of each limit.

    Args:
        limits: the run's.
        done: what is trained by then, as far as it is known. Of what is twice a limit already, there is to be twice as
            much.
    """
    return {f"trainer.{n}": 2 * (limit if 2 * limit > done.get(n, 0) else done[n]) for n, limit in limits.items()}


def steps_an_epoch(trainer: Trainer) -> float:
    """Optimizer steps in an epoch; inf where nobody knows."""
    batches = trainer.num_training_batches
    return batches if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
