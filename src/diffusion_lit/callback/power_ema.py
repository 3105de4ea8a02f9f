"""A power-function average of the weights, with snapshots from which averages of other lengths can be made."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from diffusion_lit.average.power_function import check_std, decay
from diffusion_lit.average.reconstruction import Kept, kept_averages
from diffusion_lit.average.snapshot import Snapshot, snapshots_of
from diffusion_lit.callback.average import WeightAverage
from diffusion_lit.counted import memory
from diffusion_lit.distributed.sharding import trained_parameters, unsharded
from diffusion_lit.files import keep

__all__ = ["PowerEMA"]

log = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class PowerEMA(WeightAverage):
    """An average with d = (1 - 1 / n)^(gamma + 1) at the n-th step, its profile being a power of the step.

    It so spans a fixed share of training, however long that becomes, and forgets the initial weights altogether
    (Karras et al. 2024, eq. 127, arXiv:2312.02696). Of two of them, and of the snapshots that they keep,
    `weights=power_LENGTH` makes an average of any length once training is over.

    A snapshot is a file `averages/std_STD_step_STEP.pt` in the run's folder, whole or not there. A resumed run begins
    with those up to its step of the run that it resumes, as second names of the same files where the system has them.

    Args:
        std: length, the standard deviation of the profile as a share of training; 0.05 and 0.10 make most others.
        folder: the run's, in which snapshots are kept.
        every_n_steps: optimizer steps between snapshots; 16 over all training make lengths of 0.03 to 0.2 to 4%.
        dtype: of snapshots: float16, bfloat16 or float32, with 2, 2 and 4 bytes a parameter.
        name: as in `WeightAverage`.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, std: float, folder: str, every_n_steps: int = 1000, dtype: str = "float16", name: str = "ema"
    ) -> None:
        super().__init__(name)
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps of a power-function average must be at least 1, got {every_n_steps}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype of a power-function average must be {', '.join(DTYPES)}, got {dtype}")
        self.std, self.run, self.every_n_steps = (
            check_std(std, f"std of the average {name}"),
            Path(folder),
            every_n_steps,
        )
        self.dtype = DTYPES[dtype]
        self.steps: list[int] = []
        """Those at which snapshots were kept."""

    def decay_at(self, n: int) -> float:
        return decay(self.std, n)

    @property
    def length(self) -> str:
        return f"power {self.std:g}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        lengths = [c.std for c in trainer.callbacks if isinstance(c, PowerEMA)]  # type: ignore[attr-defined]
        if len(set(lengths)) < len(lengths):
            raise ValueError(f"power-function averages must differ in their std, got {lengths}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self.take_over(None if trainer.ckpt_path is None else Path(trainer.ckpt_path).resolve().parents[1])
            size = sum(p.numel() for p in trained_parameters(pl_module).values()) * self.dtype.itemsize
            count = trainer.max_steps // self.every_n_steps
            whole = f", {count} in all: {memory(count * size)}" if count > 0 else ""
            every = f"every {self.every_n_steps:,} steps"
            log.info("snapshots of the average of length %g: %s each, %s%s", self.std, memory(size), every, whole)

    def take_over(self, earlier: Path | None) -> None:
        """Begin with the snapshots, up to this step, of the run that is resumed, and with no others."""
        for snapshot in snapshots_of(self.run):
            if snapshot.std == self.std and snapshot.step not in self.steps:
                snapshot.path.unlink()  # of steps that are taken again
        found = []
        for step in self.steps:
            own = Snapshot(self.run, self.std, step)
            if earlier is not None and not own.path.is_file():
                other = Snapshot(earlier, self.std, step).path
                if other.is_file():
                    own.path.parent.mkdir(parents=True, exist_ok=True)
                    keep(other, own.path)
            if own.path.is_file():
                found.append(step)
        if lost := len(self.steps) - len(found):
            log.warning(
                "%d of %d snapshots of the average of length %g are not in %s: other lengths will be less exact",
                lost,
                len(self.steps),
                self.std,
                earlier,
            )
        self.steps = found

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        before = self.num_updates
        super().on_train_batch_end(trainer, pl_module)
        if self.num_updates > before and self.num_updates % self.every_n_steps == 0:
            weights = {}
            for name, w in self.average.items():
                whole = unsharded(w)  # by all processes together
                if trainer.is_global_zero:
                    weights[name] = whole.to("cpu", self.dtype, copy=True)
            if trainer.is_global_zero:
                Snapshot(self.run, self.std, self.num_updates).write(weights)
            self.steps.append(self.num_updates)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint.setdefault("power_averages", {})[self.name] = {"std": self.std, "steps": list(self.steps)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        kept = kept_averages(checkpoint, "the checkpoint").get(self.name, Kept(0.0, []))
        if kept.std != self.std:
            was = f"of length {kept.std:g}" if kept.std else "not a power-function average"
            raise ValueError(
                f"the average {self.name} cannot become one of length {self.std:g} in mid-training: in the checkpoint "
                f"it is {was}. Resume with what it was; weights=power_{self.std:g} makes another length of snapshots"
            )
        self.steps = kept.steps
