"""Snapshots of averages: files from which averages of other lengths are made after training."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.files import replacing
from diffusion_lit.trust.tensor_file import broken_checksum, load_tensors

__all__ = ["FOLDER", "Snapshot", "snapshots_of"]

FOLDER = "averages"
"""Where in a run's folder they are."""
NAME = re.compile(r"std_(0\.\d+)_step_(\d+)\.pt")


@dataclass(frozen=True)
class Snapshot:
    """The average of length `std` as it was at `step`."""

    run: Path
    """The folder of the run."""
    std: float
    step: int

    @property
    def path(self) -> Path:
        return self.run / FOLDER / f"std_{self.std}_step_{self.step:07d}.pt"

    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Write the file, whole or not at all.

        Raises:
            FloatingPointError: if a weight is not finite, or has become so in its dtype.
        """
        for name, w in weights.items():
            if not w.isfinite().all():
                raise FloatingPointError(
                    f"{name} of the average of length {self.std} is not finite in {w.dtype} at step {self.step}: no "
                    "snapshot was written. If it is only too large for it, use dtype=bfloat16 or float32 of the average"
                )
        with replacing(self.path) as file:
            torch.save({"std": self.std, "step": self.step, "weights": dict(weights)}, file)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The weights, of just these names.

        Raises:
            ValueError: if the file is damaged, or is of something else.
        """
        content: Any = load_tensors(self.path, "is not a snapshot of an average, or is damaged")
        if (found := broken_checksum(self.path)) is not None:
            raise ValueError(found)
        weights = content.get("weights") if isinstance(content, dict) else None
        if not isinstance(weights, dict) or (content.get("std"), content.get("step")) != (self.std, self.step):
            raise ValueError(f"{self.path} is not the snapshot that its name says; move it out of the folder")
        if wrong := {*names} ^ weights.keys():
            raise ValueError(f"{self.path} is of another model: {sorted(wrong)[0]} is in one of both alone")
        return weights


def snapshots_of(run: Path) -> list[Snapshot]:
    """Those that a run's folder has, by step and length."""
    found = [(path, NAME.fullmatch(path.name)) for path in (run / FOLDER).glob("*.pt")]
    named = [Snapshot(run, float(match[1]), int(match[2])) for _, match in found if match]
    return sorted(named, key=lambda snapshot: (snapshot.step, snapshot.std))
