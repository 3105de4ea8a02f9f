"""The curves of runs, run against run, as a page and a figure draw them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_lit.evaluation.report import cell_name
from diffusion_lit.logger.dashboard import Panel, panels_of
from diffusion_lit.page.chart import Chart, Curve
from diffusion_lit.run.past import Evaluation, PastRun

__all__ = [
    "AXES",
    "CALLS",
    "GUIDANCE",
    "curves_of",
    "evaluation_charts",
    "evaluation_curves",
    "panel_curves",
    "panels_of_runs",
    "title_of",
    "used_axes",
]

AXES = {
    "step": "optimizer steps",
    "images_seen": "images seen",
    "minutes": "minutes of training steps",
}
GUIDANCE, CALLS = "guidance", "network calls an image"
AVERAGED_AND_RAW = Panel("averaged against raw weights", ["val/loss", "val/loss_raw"], log=True)


def panels_of_runs(runs: Sequence[PastRun]) -> list[Panel]:
    """Those of a run's dashboard, for all figures that any run has, and the averaged weights against the raw."""
    rows = [{name: value for name, value in row.items() if name != "minutes"} for run in runs for row in run.rows]
    panels, names = panels_of(rows), {name for row in rows for name in row}
    return [*panels[:1], *[AVERAGED_AND_RAW] * names.issuperset(AVERAGED_AND_RAW.names), *panels[1:]]


def used_axes(runs: Sequence[PastRun]) -> dict[str, str]:
    """What figures can be drawn against: all that every run with figures says of its steps, and how it is called."""
    tables = [run.rows for run in runs if run.rows]
    return {key: name for key, name in AXES.items() if all(any(key in row for row in rows) for rows in tables)}


def panel_curves(panel: Panel, runs: Sequence[PastRun], x: str = "step") -> list[Curve]:
    """A panel's lines: a colour for each run, or of a single run for each figure; dashes tell them apart as well."""
    curves = []
    for i, run in enumerate(runs):
        where = places(run.rows, x)
        for j, name in enumerate(panel.names):
            points = [
                (where[row["step"]], float(row[name])) for row in run.rows if name in row and row["step"] in where
            ]
            alike = len({other.partition("/")[0] for other in panel.names}) == 1 < len(panel.names)
            label = name.partition("/")[2] if alike else name
            if points and len(runs) == 1:
                curves.append(Curve(label, points, j, j))
            elif points and len(panel.names) == 1:
                curves.append(Curve(run.name, points, i, i))
            elif points:
                curves.append(Curve(f"{run.name}: {label}", points, i, j))
    return curves


def title_of(panel: Panel) -> str:
    """Of a single figure that is in a panel by its first word, the whole name: it says of what features it is."""
    own = len(panel.names) == 1 and panel.names[0].startswith(f"{panel.title}/")
    return panel.names[0] if own else panel.title


def places(rows: Sequence[Mapping[str, Any]], x: str) -> dict[int, float]:
    """Where the steps are on an axis; between rows that say it, evenly, since not every row has every figure."""
    known = [(row["step"], row[x]) for row in rows if math.isfinite(row.get(x, math.nan))]
    if not known:
        return {}
    steps = [row["step"] for row in rows if known[0][0] <= row["step"] <= known[-1][0]]
    placed = np.interp(steps, [step for step, _ in known], [place for _, place in known])
    return dict(zip(steps, placed.tolist(), strict=True))


def curves_of(runs: Sequence[PastRun]) -> list[tuple[Chart, str]]:
    """Every panel against every axis, with either kind of upright axis; beside each, the names it is chosen by.

    `fits` is among them where the upright axis is the panel's own kind.
    """
    charts = []
    for panel in panels_of_runs(runs):
        for x, x_name in used_axes(runs).items():
            curves = panel_curves(panel, runs, x)
            by_kind = {log: Chart(title_of(panel), x_name, curves, log, panel.from_zero) for log in (False, True)}
            fits = panel.log and not by_kind[True].is_empty
            for log, chart in by_kind.items():
                if not chart.is_empty:
                    kind = f"variant x-{x} {'log' if log else 'linear'}"
                    charts.append((chart, f"{kind} fits" if log == fits else kind))
    return charts


def evaluation_curves(evaluation: Evaluation) -> tuple[bool, dict[str, list[Curve]]]:
    """Of a comparison: whether it is against guidance and not network calls, and the curves of each figure.

    It is against guidance where that varies and the number of steps does not. A curve is named by what else differs;
    real images, where they were measured, are one of them.
    """
    results: Sequence[Mapping[str, Any]] = evaluation.record["results"]
    if len(results) < 2:
        return False, {}
    by_guidance = "guidance" in results[0]["cell"] and "steps" not in results[0]["cell"]
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for result in results:
        left_out = ("steps", "seed", "guidance" if by_guidance else "")
        line = cell_name({key: value for key, value in result["cell"].items() if key not in left_out})
        x = result["cell"]["guidance"] if by_guidance else result["generated"]["calls_per_image"]
        for name, figure in result["figures"].items():
            lines.setdefault(line, {}).setdefault(name, []).append((x, figure["value"]))
    floor, found = evaluation.record.get("floor") or {}, {}
    for name in results[0]["figures"]:
        curves = [
            Curve(line, sorted(points[name]), i, i) for i, (line, points) in enumerate(lines.items()) if name in points
        ]
        if name in floor:
            ends = [x for curve in curves for x, _ in curve.points]
            curves.append(Curve("real images", [(x, floor[name]["value"]) for x in (min(ends), max(ends))], 5, 2))
        found[name] = curves
    return by_guidance, found


def evaluation_charts(evaluation: Evaluation) -> list[Chart]:
    by_guidance, figures = evaluation_curves(evaluation)
    x_name = GUIDANCE if by_guidance else CALLS
    charts = [Chart(name, x_name, curves, log_x=not by_guidance) for name, curves in figures.items()]
    return [chart for chart in charts if not chart.is_empty]
