"""What the page of runs says, as plain values for its template."""

from collections.abc import Sequence
from typing import Any

import yaml

from diffusion_lit.page.commands import commands_of
from diffusion_lit.page.curves import curves_of, used_axes
from diffusion_lit.page.facts import differing, machine_of, parts_of, progress_of, summary
from diffusion_lit.page.picture import pictures_of
from diffusion_lit.page.results import evaluations_of
from diffusion_lit.run.past import PastRun

__all__ = ["content_of"]

TITLED = 3
"""Of more runs the title has the number and not the names."""


def content_of(runs: Sequence[PastRun]) -> dict[str, Any]:
    """Everything that the template shows of these runs."""
    left_out = [f"{run.name}: {text}" for run in runs for text in run.left_out]
    pictures, evaluations, charts = pictures_of(runs, left_out), evaluations_of(runs, left_out), curves_of(runs)
    described = [
        {
            "name": run.name,
            "summary": summary(run),
            "commands": commands_of(run),
            "settings": yaml.safe_dump(run.config, sort_keys=False) if run.config else "",
        }
        for run in runs
    ]
    sections = {
        "trained": ("What was trained", True),
        "curves": ("Curves", charts),
        "samples": ("Samples", pictures["rows"]),
        "evaluation": ("Evaluation", evaluations),
        "machine": ("Machine and cost", True),
        "commands": ("Commands", any(run["commands"] for run in described)),
        "left-out": ("Left out", left_out),
    }
    return {
        "title": " against ".join(run.name for run in runs) if len(runs) <= TITLED else f"{len(runs)} runs",
        "runs": described,
        "parts": parts_of(runs),
        "progress": progress_of(runs),
        "differing": differing(runs),
        "axes": used_axes(runs),
        "charts": charts,
        "pictures": pictures,
        "evaluations": evaluations,
        "machine": machine_of(runs),
        "left_out": left_out,
        "sections": {anchor: name for anchor, (name, shown) in sections.items() if shown},
    }
