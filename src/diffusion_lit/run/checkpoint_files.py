"""How a trainer writes and reads checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

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

    Of one that stands, files that it names are those of the run's folder, wherever that is now.

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
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                follow_folder(callback, checkpoint["callbacks"].get(callback.state_key) or {})


def follow_folder(callback: ModelCheckpoint, state: dict[str, Any]) -> None:
    """Where a run's folder was renamed or copied since, and it continues there, let its files be found there.

    Lightning, which looks for them where they were, would begin anew, and replace the best checkpoint by a worse one.

    Args:
        callback: of the run that is resumed.
        state: what the checkpoint has of it, which is changed.
    """
    old, new = state.get("dirpath"), callback.dirpath
    if not isinstance(old, str) or new is None or old == new:
        return

    def moved(path: str) -> str:
        return str(Path(new, Path(path).name)) if path and Path(path).parent == Path(old) else path

    best = moved(state["best_model_path"])
    if best and Path(best).parent == Path(new) and Path(best).is_file():
        state |= {name: moved(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        state |= {"dirpath": new, "best_k_models": {moved(path): s for path, s in state["best_k_models"].items()}}
