"""The checkpoint that a run is resumed from."""

import logging
import shlex
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

__all__ = ["Interrupted", "LastCheckpoint"]

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training was asked to stop, and has saved what it had.

    Args:
        number: number of the signal.
        path: path of the checkpoint.
    """

    def __init__(self, number: int, path: Path) -> None:
        self.exit_code = 128 + number
        name = signal.Signals(number).name
        resume = shlex.quote(f"resume={path.parents[1]}")
        super().__init__(f"stopped by {name}; everything is saved. Continue with {resume}, or resume=auto")


class LastCheckpoint(Checkpoint):
    """Keeps `folder`/last.ckpt: written every n steps, at the last step, and when the process is asked to stop.

    SIGINT (control-C) and SIGTERM (what schedulers send) wait for the step to end, on whichever rank they arrive; all
    ranks then save and stop together. A second control-C stops at once. A checkpoint is written between optimizer
    steps, so that a run resumed from it takes the very steps that an uninterrupted one would have. A fault between
    two steps, such as a file that cannot be read, loses no step either where there is a single process; several could
    not agree on a checkpoint.

    Args:
        folder: where the file goes; it replaces its predecessor only when it is complete.
        every_n_steps: optimizer steps between checkpoints.

    Raises:
        ValueError: if `every_n_steps` is under 1.
    """

    def __init__(self, folder: str, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise ValueError(f"callback.last_checkpoint.every_n_steps must be at least 1, got {every_n_steps}")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.received = 0
        self.handlers: dict[int, Any] = {}
        self.between_steps = self.lost_worker = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step = self.last_step = trainer.global_step
        self.trainer = trainer
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self.handlers = {number: signal.signal(number, self.receive) for number in SIGNALS}
            if callable(signal.getsignal(signal.SIGCHLD)):
                self.handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self.lose_worker)

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:  # asked twice by a person: stop at once, without saving
            raise KeyboardInterrupt
        self.received = number

    def lose_worker(self, number: int, frame: FrameType | None) -> None:
        """Where torch raises that a loading process has ended, wherever training is, wait for the end of the step."""
        self.lost_worker = not self.between_steps
        if self.between_steps and not self.trainer.interrupted:  # a second one that ends must not disturb the saving
            self.handlers[signal.SIGCHLD](number, frame)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.between_steps = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.last_step:  # in the middle of an accumulation, whose gradients are not saved
            return
        self.last_step = trainer.global_step
        self.between_steps = True
        stop = not trainer.strategy.reduce_boolean_decision(not self.received, all=True)
        last = trainer.should_stop or trainer.global_step == trainer.max_steps
        if stop or last or trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)
        if stop:
            raise Interrupted(self.received or signal.SIGTERM, self.path)
        if self.lost_worker:
            self.lose_worker(signal.SIGCHLD, None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self.saved_step:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.path, weights_only=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        clean = self.between_steps and trainer.training and not isinstance(exception, KeyboardInterrupt)
        if clean and trainer.world_size == 1 and trainer.global_step != self.saved_step:
            self.save(trainer)
            log.warning("step %d was saved to %s before this fault", trainer.global_step, self.path)
        self.restore_handlers()

    def restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}
