"""How a trainer writes and reads checkpoints."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from diffusion_lit.files import replacing
from diffusion_lit.progress import progress

__all__ = ["CheckpointFiles"]


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
