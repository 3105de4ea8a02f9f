"""What runs are compared by."""

import math
from pathlib import Path

from omegaconf import DictConfig

from diffusion_lit.csv_logger import read_table

__all__ = ["figures_of"]


def figures_of(cfg: DictConfig) -> dict[str, float]:
    """The `best` and the `last` value of `cfg.objective` in a run's table.

    Raises:
        ValueError: if it was not logged, or is never a number; or if `cfg.objective_mode` is neither min nor max.
    """
    if cfg.objective_mode not in ("min", "max"):
        raise ValueError(f"objective_mode must be min or max, got {cfg.objective_mode}")
    rows = read_table(Path(cfg.run_dir) / "metrics.csv")
    values = [row[cfg.objective] for row in rows if math.isfinite(row.get(cfg.objective, math.nan))]
    if not values:
        logged = sorted({name for row in rows for name in row} - {"step"})
        raise ValueError(
            f"objective={cfg.objective} has no value in {cfg.run_dir}/metrics.csv: "
            + (f"choose one of {', '.join(logged)}" if logged else "leave the csv logger in, which writes it")
        )
    return {"best": (min if cfg.objective_mode == "min" else max)(values), "last": values[-1]}
