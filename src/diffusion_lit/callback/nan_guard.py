"""Stop a run that has diverged, before it overwrites what was good."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from diffusion_lit.callback.average import averages_of
from diffusion_lit.callback.last_checkpoint import LastCheckpoint
from diffusion_lit.checkpoint import damage
from diffusion_lit.distributed.sharding import local
from diffusion_lit.module import DiffusionModule

__all__ = ["NaNGuard"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class NaNGuard(Callback):
    """Notices a gradient that is infinite or not a number, and never lets a checkpoint be written after one.

    It looks at the norm of the gradient that clipping computes anyway, and reads the verdict every n steps, so that an
    accelerator is not made to wait at each. Before each checkpoint it looks at the weights, averages and optimizer
    state that would go into it as well, and after each validation at its loss. All ranks decide together: gradients are
    already added up over them.

    Args:
        every_n_steps: optimizer steps between readings.
        skip: how many steps in a row may be left out, with a warning, before training stops; 0 stops at the first.
            Where steps are left out, each waits for its own verdict.

    Raises:
        ValueError: if `every_n_steps` is under 1, or `skip` negative.
    """

    every_n_steps: int = 20
    skip: int = 0

    def __post_init__(self) -> None:
        if self.every_n_steps < 1 or self.skip < 0:
            raise ValueError(
                "callback.nan_guard needs every_n_steps of at least 1 and skip of at least 0, got "
                f"every_n_steps={self.every_n_steps} and skip={self.skip}"
            )
        self.first_bad: Tensor | None = None
        """Step, least and greatest t of the first bad gradient: [3] on the device; its step is inf before."""
        self.skipped_in_a_row = 0

    def on_gradient(self, trainer: Trainer, module: DiffusionModule, optimizer: Optimizer, norm: Tensor) -> None:
        """Called by the module with the norm of each step's gradient, before its update."""
        if trainer.precision == "16-mixed":  # whose scaler lets gradients overflow, and leaves out their steps, itself
            return
        if self.skip and not bool(norm.isfinite()):
            self.leave_out(trainer, optimizer)
            return
        self.skipped_in_a_row = 0
        least, greatest = module.times
        seen = torch.stack([torch.full_like(least, trainer.global_step + 1), least, greatest])
        if self.first_bad is None:
            self.first_bad = torch.full_like(seen, torch.inf)
        bad = ~norm.isfinite() & self.first_bad[0].isinf()
        self.first_bad = torch.where(bad, seen, self.first_bad)
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            self.check(trainer)

    def leave_out(self, trainer: Trainer, optimizer: Optimizer) -> None:
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > self.skip:
            self.stop(trainer, f"the gradient was not finite for {self.skipped_in_a_row} steps in a row")
        optimizer.zero_grad()  # an optimizer leaves parameters without a gradient as they are
        log.warning("step %d is left out: its gradient was not finite", trainer.global_step + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not trainer.sanity_checking and not bool(loss.isfinite()):
            self.stop(trainer, "the validation loss, of the averaged weights, is not finite")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.check(trainer)
        parts = {name: checkpoint.get(name) for name in ("state_dict", "optimizer_states")}
        parts |= {callback.name: [callback.average, callback.raw] for callback in averages_of(trainer)}
        bad = next((name for name, part in parts.items() if not all_finite(tensors(part))), None)
        if not trainer.strategy.reduce_boolean_decision(bad is None, all=True):
            self.stop(trainer, f"{bad or 'what another process would save'} in the checkpoint would not be finite")

    def check(self, trainer: Trainer) -> None:
        """Read the verdict.

        Raises:
            FloatingPointError: if a gradient since the start was not finite.
        """
        if self.first_bad is None or bool(self.first_bad[0].isinf()):
            return
        step, least, greatest = self.first_bad
        self.stop(
            trainer,
            f"the gradient was not finite at step {int(step)}, whose times t were {least:.3g} to {greatest:.3g}",
        )

    def stop(self, trainer: Trainer, what: str) -> None:
        kept = "".join(f"\n  {path}" for path in self.good_checkpoints(trainer)) or " none was written yet"
        rates = ", ".join(f"{group['lr']:.3g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
        raise FloatingPointError(
            f"{what} (learning rate {rates}, precision {trainer.precision}). Training is stopped, and nothing was "
            f"saved since. Verified checkpoints:{kept}\nContinue from one with resume=PATH and a lower optimizer.lr, a "
            "longer warm-up, trainer.gradient_clip_val=1, trainer.precision=32-true, or callback.nan_guard.skip=3 to "
            "leave out such steps"
        )

    def good_checkpoints(self, trainer: Trainer) -> list[Path]:
        """The files that this run has written, or else began with, and that can be read."""
        callbacks = trainer.checkpoint_callbacks
        files = [Path(c.best_model_path) for c in callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path]
        files += [c.path for c in callbacks if isinstance(c, LastCheckpoint)]
        files += [Path(trainer.ckpt_path)] if trainer.ckpt_path else []
        return [file for file in dict.fromkeys(files) if damage(file) is None]


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of floating-point numbers in nested containers; of sharded ones this process's part."""
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield local(state)
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors(value)


def all_finite(values: Iterator[Tensor]) -> bool:
    """Whether no number is infinite or not a number; a device is asked once."""
    checked = [value for value in values if value.numel()]
    if not checked:
        return True
    norms = torch._foreach_norm(checked, torch.inf)
    return bool(torch.stack([norm.to(norms[0]) for norm in norms]).isfinite().all())
