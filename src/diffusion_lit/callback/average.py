"""A running average of the weights, used for everything but training itself."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from diffusion_lit.distributed.sharding import shard_like, trained_parameters, unsharded
from diffusion_lit.trust.tensor_file import load_tensors

__all__ = ["WeightAverage", "averaged_weights", "averages_of", "chosen_average"]


class WeightAverage(Callback, ABC):
    """w_average <- d w_average + (1 - d) w after each optimizer step, d being `decay_at` the n-th.

    Only parameters that are trained are averaged, in float32. Validation, testing and prediction see the averaged
    weights; training, `state_dict` in a checkpoint and whatever follows an exception see the raw ones. A checkpoint
    holds the average under its `name`, by the same names.

    Of several averages the one named `ema`, or else the first, is what validation sees.

    Args:
        name: key of the average in a checkpoint, by which `weights=` chooses it; each average has its own.

    Raises:
        ValueError: if `name` is a key of Lightning's or `raw`.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"ema\w*", name):
            raise ValueError(f"the name of an average must begin with ema, such as ema or ema_slow, got {name!r}")
        self.name = name
        self.num_updates = 0
        self.average: dict[str, Tensor] = {}
        self.trained: list[Tensor] = []
        """The weights that are averaged, in their order in `average`; of a sharded model its optimizer's shards."""
        self.raw: dict[str, Tensor] | None = None
        """The raw weights while the model holds the average, else None."""

    @abstractmethod
    def decay_at(self, n: int) -> float:
        """d at the n-th update, counted from 1."""

    @property
    @abstractmethod
    def length(self) -> str:
        """How long the average is, in a word."""

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        names = [callback.name for callback in averages_of(trainer)]
        if len(set(names)) < len(names):
            raise ValueError(
                "averages would overwrite each other: give each its own name, or leave callback.ema out with "
                f"callback.ema=null; got the names {names}"
            )

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.align(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.align(pl_module)
        self.last_step = trainer.global_step

    def align(self, pl_module: LightningModule) -> None:
        """Begin with the model's weights, if there is no average yet; put it where the model is."""
        current = trained_parameters(pl_module)
        if not self.average:
            self.average = {name: p.detach().float().clone() for name, p in current.items()}
        self.average = {name: shard_like(w, current[name]) for name, w in self.average.items()}
        self.trained = [current[name] for name in self.average]  # once: a walk through the modules takes a millisecond

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.last_step:  # in the middle of an accumulation
            return
        self.last_step = trainer.global_step
        self.num_updates += 1
        weights = [p.float() for p in self.trained]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.decay_at(self.num_updates))

    @torch.no_grad()
    def swap_in(self, pl_module: LightningModule) -> None:
        """Put the average into the model and keep the raw weights aside; nothing if it is there already."""
        if self.raw is None and self.average:
            self.raw = {name: p.clone() for name, p in trained_parameters(pl_module).items()}
            self.write(pl_module, self.average)

    def swap_out(self, pl_module: LightningModule) -> None:
        """Put the raw weights back; nothing if they are there already."""
        if self.raw is not None:
            self.write(pl_module, self.raw)
            self.raw = None

    @torch.no_grad()
    def write(self, pl_module: LightningModule, weights: dict[str, Tensor]) -> None:
        for name, p in trained_parameters(pl_module).items():
            p.copy_(weights[name])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:  # whose validations see what is being trained
            self.read_checkpoint(trainer, pl_module)
        if chosen_average(trainer) is self:
            self.swap_in(pl_module)

    on_test_start = on_predict_start = on_validation_start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.swap_out(pl_module)

    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.swap_out(pl_module)

    def read_checkpoint(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the average from the checkpoint being evaluated: Lightning restores callbacks only when it fits."""
        if trainer.ckpt_path is not None:
            self.on_load_checkpoint(trainer, pl_module, load_tensors(Path(trainer.ckpt_path)))
        self.align(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[self.name] = {name: unsharded(w) for name, w in self.average.items()}
        checkpoint[f"{self.name}_num_updates"] = self.num_updates
        if self.raw is not None:
            checkpoint["state_dict"].update({name: unsharded(w) for name, w in self.raw.items()})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.name not in checkpoint:
            raise ValueError(
                f"the checkpoint has no averaged weights {self.name} (it was saved without the EMA callback, or with "
                "save_weights_only): turn the callback off with callback.ema=null, or use another checkpoint"
            )
        self.average = checkpoint[self.name]
        self.num_updates = checkpoint[f"{self.name}_num_updates"]


def averages_of(trainer: Trainer) -> list[WeightAverage]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, WeightAverage)]


def chosen_average(trainer: Trainer) -> WeightAverage | None:
    """The average that stands in for the weights: the one named `ema`, or else the first."""
    return min(averages_of(trainer), key=lambda average: average.name != "ema", default=None)


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule, raw: bool = False) -> Iterator[None]:
    """The model in evaluation mode and, where there is a `WeightAverage`, with its weights; restored on leaving.

    With `raw` the weights stay as they are, which outside of a validation are the raw ones.
    """
    ema = None if raw else chosen_average(trainer)
    already = ema is None or ema.raw is not None
    training = pl_module.training
    pl_module.eval()
    if ema is not None:
        ema.swap_in(pl_module)
    try:
        yield
    finally:
        if ema is not None and not already:
            ema.swap_out(pl_module)
        pl_module.train(training)
