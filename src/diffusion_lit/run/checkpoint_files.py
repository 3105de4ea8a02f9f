"""How a trainer writes and reads checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.files import replacing
from diffusion_lit.terminal.progress import progress

__all__ = ["CheckpointFiles", "SameCheckpoint"]


class CheckpointFiles(CheckpointIO):
    """Checkpoints as files that are whole or not there; read as data, never run."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with progress("saving", None, delay=2.0), replacing(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


@dataclass(eq=False)
class SameCheckpoint(Callback):
    """Refuses to resume from a checkpoint that another process replaced after its settings and figures were read.

    Args:
        file: the checkpoint.
        step: the step that it was of.

    Raises:
        ValueError: if it is of another step now.
    """

    file: Path
    step: int

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if (step := checkpoint["global_step"]) != self.step:
            raise ValueError(
                f"{self.file} was of step {self.step} when this run began to read it, and is of step {step} now: "
                "another process is training there. Stop that first; to train beside it, copy the file and resume from "
                "the copy"
            )
