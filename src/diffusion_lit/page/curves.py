"""The charts of runs: each panel of a dashboard, run against run."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_lit.dashboard import Panel, panels_of
from diffusion_lit.evaluation.report import lines_of
from diffusion_lit.page.chart import Chart, Curve
from diffusion_lit.past_run import Evaluation, PastRun

__all__ = ["AXES", "curves_of", "evaluation_charts", "panel_curves", "used_axes"]

AXES = {"step": "optimizer steps", "images_seen": "images seen"}
NUM_COLOURS, NUM_DASHES = 6, 4


def used_axes(runs: Sequence[PastRun]) -> list[tuple[str, str]]:
    """What figures can be drawn against: all that every run with figures says of each step, and how it is called."""
    tables = [run.rows for run in runs if run.rows]
    return [(key, name) for key, name in AXES.items() if all(any(key in row for row in rows) for rows in tables)]


def panel_curves(panel: Panel, runs: Sequence[PastRun], x: str = "step") -> list[Curve]:
    """A panel's lines. Of one run, a colour for each figure; of several, a colour for each run and dashes for figures."""
    curves = []
    for i, run in enumerate(runs):
        for j, name in enumerate(panel.names):
            points = [(float(row[x]), float(row[name])) for row in run.rows if x in row and name in row]
            short = name if len(panel.names) == 1 or len({n.partition("/")[0] for n in panel.names}) > 1 else None
            label = short or name.partition("/")[2]
            if points and len(runs) == 1:
                curves.append(Curve(label, points, j % NUM_COLOURS, j // NUM_COLOURS % NUM_DASHES))
            elif points:
                text = run.name if len(panel.names) == 1 else f"{run.name}: {label}"
                curves.append(Curve(text, points, i % NUM_COLOURS, j % NUM_DASHES))
    return curves


def curves_of(runs: Sequence[PastRun]) -> list[tuple[Chart, str]]:
    """Every panel against every axis, with either kind of upright axis; beside each, the names it is chosen by.

    `fits` is among them where the upright axis is the panel's own kind.
    """
    charts = []
    for panel in panels_of([row for run in runs for row in run.rows]):
        for x, x_name in used_axes(runs):
            curves = panel_curves(panel, runs, x)
            by_kind = {log: Chart(panel.title, x_name, curves, log, panel.from_zero) for log in (False, True)}
            fits = panel.log and not by_kind[True].is_empty
            for log, chart in by_kind.items():
                if not chart.is_empty:
                    kind = f"variant x-{x} {'log' if log else 'linear'}"
                    charts.append((chart, f"{kind} fits" if log == fits else kind))
    return charts


def evaluation_charts(evaluation: Evaluation) -> list[Chart]:
    """Of a comparison of samplers, steps and guidance: each figure against network calls, or against guidance alone."""
    results: Sequence[Mapping[str, Any]] = evaluation.record["results"]
    if len(results) < 2:
        return []
    by_guidance, lines = lines_of(results)
    charts = []
    for name in results[0]["figures"]:
        curves = [
            Curve(line or name, sorted(points[name]), i % NUM_COLOURS, i // NUM_COLOURS % NUM_DASHES)
            for i, (line, points) in enumerate(lines.items())
            if name in points
        ]
        x_name = "guidance" if by_guidance else "network calls an image"
        charts.append(Chart(name, x_name, curves, log_x=not by_guidance))
    return [chart for chart in charts if not chart.is_empty]
