"""The checkpoint that a run is resumed from."""

import logging
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from diffusion_lit.callback.shared_number import SharedNumber
from diffusion_lit.checkpoint import peek
from diffusion_lit.files import UnwritableError, keep
from diffusion_lit.terminal.interruption import SIGCHLD, Interrupted, Interruption

__all__ = ["LastCheckpoint", "answer_signals"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class LastCheckpoint(Checkpoint):
    """Keeps `folder`/last.ckpt: written every n steps, at the last step, and when the process is asked to stop.

    A signal waits for the step to end, on whichever rank it arrives; all ranks then save and stop together. It
    interrupts validation, FID and grids: at once in a run of one process; of several, all ranks stop together after
    the validation batch or the sampler's step that they are at. A checkpoint is written between optimizer steps, so
    that a run resumed from it takes the very steps that an uninterrupted one would have. A fault between two steps,
    such as a file that cannot be read, loses no step either where there is a single process; several could not agree
    on a checkpoint.

    Args:
        folder: where the files go; each takes its name only when it is complete.
        every_n_steps: optimizer steps between checkpoints.
        keep_last: how many of them to keep: last.ckpt, and its predecessors as last_step_N.ckpt.

    Raises:
        ValueError: if a number is under 1.
    """

    folder: str
    every_n_steps: int
    keep_last: int = 1

    def __post_init__(self) -> None:
        for name in ("every_n_steps", "keep_last"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"callback.last_checkpoint.{name} must be at least 1, got {value}")
        self.path = Path(self.folder) / "last.ckpt"
        self.interruption = Interruption()
        """Whether the process was asked to stop."""
        self.between_steps = False
        self.stopping = SharedNumber(world_size=1)
        self.child_handler: Any = None
        self.written = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            self.hold_signals(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step = trainer.global_step
        if not self.interruption.started:
            self.hold_signals(trainer)
        main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python takes no handlers
        if main_thread and SIGCHLD is not None and callable(signal.getsignal(SIGCHLD)):
            self.child_handler = signal.signal(SIGCHLD, self.lose_worker)

    def hold_signals(self, trainer: Trainer) -> None:
        """From now on somebody asks for signals; several ranks do so together, and none stops alone."""
        self.stopping = SharedNumber(trainer.world_size)
        self.interruption.started = True
        self.interruption.held = trainer.world_size > 1

    def answer(self, now: bool = False) -> None:
        """Stop, between two steps, if any rank was asked to. All ranks call this equally often.

        Args:
            now: whether to wait for the other ranks; otherwise what they say is heard at the next call.

        Raises:
            Interrupted: on all ranks at the same call.
        """
        if number := self.stopping.exchange(self.interruption.number, now):
            raise Interrupted(number)

    def on_validation_batch_start(self, *_: Any) -> None:
        self.answer()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.answer(now=True)  # before the figures are gathered, for which ranks wait anyway

    def lose_worker(self, number: int, frame: FrameType | None) -> None:
        """torch would raise here that a loading process has ended, in the middle of a step or of handling an error.

        Where it waits for a batch, which is between two steps, it finds out all the same.
        """
        with suppress(RuntimeError):
            self.child_handler(number, frame)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.between_steps, self.interruption.held = False, True

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After an optimizer step: the gradients in the middle of an accumulation are not saved."""
        self.between_steps = True
        number = self.stopping.exchange(self.interruption.number)
        if number or self.is_last(trainer) or trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)
        if number:
            raise Interrupted(number, self.path.parents[1])
        if trainer.world_size == 1:
            self.interruption.release()  # also raises where one came while the file was written

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopping.exchange(0, now=True)
        if trainer.global_step != self.saved_step:
            self.save(trainer)
        elif trainer.is_global_zero and trainer.ckpt_path and not self.path.is_file():  # there was no step left
            state = trainer.strategy.checkpoint_io.load_checkpoint(trainer.ckpt_path, weights_only=True)
            state.update(getattr(pl_module, "record", {}))  # the same state, of another run
            trainer.strategy.checkpoint_io.save_checkpoint(state, self.path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last step's checkpoint says that its validation is done; written after `fit` it would end the epoch."""
        if not trainer.sanity_checking and self.is_last(trainer):
            self.save(trainer)
            if trainer.world_size == 1:
                self.interruption.release()

    def is_last(self, trainer: Trainer) -> bool:
        return trainer.should_stop or trainer.global_step == trainer.max_steps

    def save(self, trainer: Trainer) -> None:
        held, self.interruption.held = self.interruption.held, True
        newer = trainer.global_step != self.saved_step
        if self.written and trainer.is_global_zero and not self.path.parent.is_dir():
            log.warning(
                "%s was removed or moved during training. Training continues and creates it again, with checkpoints, "
                "metrics and new pictures, but without the log and earlier pictures",
                self.path.parents[1],
            )
        if self.keep_last > 1 and newer and trainer.is_global_zero and (step := self.step_on_disk()) is not None:
            keep(self.path, self.path.with_name(f"last_step_{step:07d}.ckpt"))
        for logger in trainer.loggers:
            logger.save()  # the figures of the steps that are saved
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved_step, self.written = trainer.global_step, True
        if trainer.is_global_zero:
            for old in sorted(self.path.parent.glob("last_step_*.ckpt"))[: 1 - self.keep_last or None]:
                old.unlink()
        self.interruption.held = held

    def step_on_disk(self) -> int | None:
        """The step of last.ckpt, which may be an earlier process's; None where there is none, or it says no step."""
        if not self.path.is_file():
            return None
        return self.saved_step if self.written else (peek(self.path)[0] or {}).get("global_step")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.restore_handler()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        saves = not isinstance(exception, KeyboardInterrupt | FloatingPointError | UnwritableError)
        together = trainer.world_size == 1 or isinstance(exception, Interrupted)
        if self.between_steps and saves and together and trainer.global_step != self.saved_step:
            self.save(trainer)
            log.warning("step %d was saved to %s before this", trainer.global_step, self.path)
        if isinstance(exception, Interrupted) and self.path.is_file():
            exception.saved = self.path.parents[1]
        self.restore_handler()

    def restore_handler(self) -> None:
        if self.child_handler is not None and SIGCHLD is not None:
            signal.signal(SIGCHLD, self.child_handler)
            self.child_handler = None


def answer_signals(trainer: Trainer) -> None:
    """Between two pieces of long work outside of training steps: stop if any rank was asked to.

    All ranks must call this equally often, or they wait for each other for ever. Without `LastCheckpoint`, nothing.

    Raises:
        Interrupted: on all ranks at the same call; what was trained is then saved.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LastCheckpoint):
            callback.answer()
