"""What several seeds say of a figure's uncertainty."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffusion_lit.evaluation.report import cell_name

__all__ = ["over_seeds"]


def over_seeds(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and half the 95 % interval of Student's t of each figure, over the seeds of each cell."""
    from scipy.special import stdtrit

    cells: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if "seed" in result["cell"]:
            rest = {key: value for key, value in result["cell"].items() if key != "seed"}
            cells.setdefault(cell_name(rest), []).append(result["figures"])
    summary = []
    for cell, measured in cells.items():
        count, figures = len(measured), {}
        for name in measured[0]:
            values = torch.tensor([own[name]["value"] for own in measured], dtype=torch.float64)
            t = stdtrit(count - 1, 0.975)
            figures[name] = [float(values.mean()), float(t * values.std() / math.sqrt(count))]
        summary.append({"cell": cell, "count": count, "figures": figures})
    return summary
