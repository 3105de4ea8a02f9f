"""What runs are compared by."""

import logging
import math
from pathlib import Path

from omegaconf import DictConfig

from diffusion_lit.logger.csv import read_table

__all__ = ["figures_of"]

log = logging.getLogger(__name__)

NOT_COMPARED = ("step", "epoch", "images_seen", "size/", "throughput/", "memory/", "train/lr")
"""Columns, by the beginnings of their names, that say how far a run is, what it was given or what it costs."""


def figures_of(cfg: DictConfig) -> dict[str, float]:
    """The `best` and the `last` value of `cfg.objective` in a run's table; nothing, and a warning, if it has none."""
    rows = read_table(Path(cfg.run_dir) / "metrics.csv")
    values = [row[cfg.objective] for row in rows if math.isfinite(row.get(cfg.objective, math.nan))]
    if not values:
        compared = {name for row in rows for name in row if not name.startswith(NOT_COMPARED)}
        remedies = [f"choose one of {', '.join(sorted(compared))}"] if compared else []
        if not rows:
            remedies = ["leave the csv logger in, which writes it"]
        elif cfg.objective.startswith("val/"):
            remedies.insert(0, "let trainer.val_check_interval be at most the steps of a run")
        remedy = ", or ".join(remedies) or "nothing in it compares runs"
        log.warning("objective=%s has no value in %s/metrics.csv: %s", cfg.objective, cfg.run_dir, remedy)
        return {}
    return {"best": (min if cfg.objective_mode == "min" else max)(values), "last": values[-1]}
