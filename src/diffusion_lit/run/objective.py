"""What runs are compared by."""

import logging
import math
from pathlib import Path

from omegaconf import DictConfig

from diffusion_lit.logger.csv import read_table

__all__ = ["figures_of"]

log = logging.getLogger(__name__)


def figures_of(cfg: DictConfig) -> dict[str, float]:
    """The `best` and the `last` value of `cfg.objective` in a run's table; nothing, and a warning, if it has none."""
    rows = read_table(Path(cfg.run_dir) / "metrics.csv")
    values = [row[cfg.objective] for row in rows if math.isfinite(row.get(cfg.objective, math.nan))]
    if not values:
        logged = sorted({name for row in rows for name in row} - {"step"})
        remedy = f"choose one of {', '.join(logged)}" if logged else "leave the csv logger in, which writes it"
        log.warning("objective=%s has no value in %s/metrics.csv: %s", cfg.objective, cfg.run_dir, remedy)
        return {}
    return {"best": (min if cfg.objective_mode == "min" else max)(values), "last": values[-1]}
