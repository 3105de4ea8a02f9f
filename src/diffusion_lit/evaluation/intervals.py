"""What several seeds say of a figure's uncertainty."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffusion_lit.evaluation.report import cell_name

__all__ = ["over_seeds"]

T_975 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, for 1 to 9 degrees of freedom."""


def over_seeds(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and half a 95 % interval of each figure, over the seeds of each cell."""
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
            t = T_975[count - 2] if count - 2 < len(T_975) else 1.96 + 2.5 / (count - 1)
            figures[name] = [float(values.mean()), float(t * values.std() / math.sqrt(count))]
        summary.append({"cell": cell, "count": count, "figures": figures})
    return summary
