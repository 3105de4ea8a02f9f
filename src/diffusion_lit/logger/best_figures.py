"""The best value of each figure so far, and its step."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["BestFigures"]

LOSSES = ("val/loss", "val/loss_raw", "test/loss")
"""Figures of which lower is better, as it is of Frechet distances, whatever a run is compared by."""


class BestFigures:
    """Keeps the best value of each figure whose better direction is known.

    Args:
        modes: whether `min` or `max` is best, by the figure's name; those of losses and Frechet distances are known.
    """

    def __init__(self, modes: Mapping[str, str]) -> None:
        self.modes = modes
        self.values: dict[str, float] = {}
        self.steps: dict[str, int] = {}

    def mode_of(self, name: str) -> str | None:
        return self.modes.get(name, "min" if name in LOSSES or name.startswith("fid/") else None)

    def update(self, figures: Mapping[str, Any], step: int) -> list[str]:
        """Take in the figures of a step; returns the names of those that are better than all before."""
        improved = []
        for name, value in figures.items():
            if (mode := self.mode_of(name)) is None or not math.isfinite(value):
                continue
            sign = 1 if mode == "min" else -1
            if name not in self.values or sign * float(value) < sign * self.values[name]:
                self.values[name], self.steps[name] = float(value), step
                improved.append(name)
        return improved
