"""What loggers have written of a run, read back."""

from pathlib import Path

import numpy as np

from diffusion_lit.logger.csv import read_table

Figures = dict[str, dict[int, float]]
"""By name and step, as float32, which is what TensorBoard keeps."""


def table(run: Path) -> Figures:
    """metrics.csv."""
    columns: Figures = {}
    for row in read_table(run / "metrics.csv"):
        for name, value in row.items():
            if name != "step":
                columns.setdefault(name, {})[row["step"]] = float(np.float32(value))
    return dict(sorted(columns.items()))


def scalars(run: Path) -> Figures:
    """TensorBoard's figures, but for `hp_metric`; a figure that is there twice fails."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()
    columns: Figures = {}
    for name in events.Tags()["scalars"]:
        points = events.Scalars(name)
        columns[name] = {point.step: point.value for point in points}
        assert len(points) == len(columns[name]), f"{name} is twice at a step: {[point.step for point in points]}"
    columns.pop("hp_metric", None)
    return dict(sorted(columns.items()))
