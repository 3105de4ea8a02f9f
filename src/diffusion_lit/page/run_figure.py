"""Curves of runs as figures for a paper: PNG, SVG and PDF."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_lit.files import replacing
from diffusion_lit.page.chart import Curve, fits
from diffusion_lit.page.curves import (
    AXES,
    CALLS,
    GUIDANCE,
    evaluation_curves,
    panel_curves,
    panels_of_runs,
    title_of,
    used_axes,
)
from diffusion_lit.run.past import Evaluation, PastRun

__all__ = ["FORMATS", "check_formats", "draw_runs", "drawings_of", "save_page"]

FORMATS = ("png", "svg", "pdf")
COLUMNS, SIZE = 3, (4.2, 3.1)
"""Panels beside each other, and the inches of one."""
SETTINGS: Any = {"svg.hashsalt": "diffusion-lit", "pdf.fonttype": 42, "svg.fonttype": "none", "legend.fontsize": 7}
"""The same curves are the same file, and its text is text."""
MOST_INSIDE = 4
"""Curves whose names have room within a panel."""
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Drawing:
    """A panel of a figure."""

    title: str
    x_name: str
    curves: Sequence[Curve]
    log: bool = False
    log_x: bool = False
    from_zero: bool = False


def check_formats(formats: object) -> list[str]:
    """One format or several, as a list.

    Raises:
        ValueError: if there is none, or another than these.
    """
    given = [formats] if isinstance(formats, str) else list(formats) if isinstance(formats, Sequence) else []
    if not given or (unknown := [str(name) for name in given if name not in FORMATS]):
        named = ", ".join(unknown) if given else "none"
        raise ValueError(f"format must be of {', '.join(FORMATS)}, one or a list, got {named}")
    return list(dict.fromkeys(given))


def draw_runs(runs: Sequence[PastRun], out: Path, x: str = "step", formats: Sequence[str] = FORMATS) -> list[Path]:
    """Draw all panels of the runs on one page, each panel alone, and each comparison that was evaluated.

    Args:
        runs: run is drawn against run.
        out: the folder of the files.
        x: what figures are drawn against, a key of `AXES`.
        formats: of `FORMATS`.

    Returns:
        The files: `curves`, a panel's by its title, and `evaluation_NAME` by the folder that the evaluation is in.

    Raises:
        ValueError: if there is nothing to draw, or a run does not have `x`.
    """
    if x not in AXES:
        raise ValueError(f"x must be one of {', '.join(AXES)}, got {x}")
    if any(run.rows for run in runs) and x not in (known := used_axes(runs)):
        raise ValueError(f"x={x} is not in the metrics.csv of all runs: choose of {', '.join(known)}")
    panels = [
        Drawing(title_of(panel), AXES[x], panel_curves(panel, runs, x), panel.log, from_zero=panel.from_zero)
        for panel in panels_of_runs(runs)
    ]
    panels = [panel for panel in panels if panel.curves]
    pages = {"curves": panels} if panels else {}
    for panel in panels:
        pages[unused(name_of(panel.title), pages)] = [panel]
    for run in runs:
        for evaluation in run.evaluations:
            if shown := drawings_of(evaluation):
                pages[unused(f"evaluation_{name_of(evaluation.path.parent.name)}", pages)] = shown
    if not pages:
        raise ValueError("these runs have no figures: metrics.csv is empty or not there, and nothing was evaluated")
    return [path for name, shown in pages.items() for path in save_page(shown, out / name, formats)]


def drawings_of(evaluation: Evaluation) -> list[Drawing]:
    """A panel for each figure of a comparison of samplers, steps and guidance; none of a single result."""
    by_guidance, figures = evaluation_curves(evaluation)
    x_name = GUIDANCE if by_guidance else CALLS
    return [Drawing(name, x_name, curves, log_x=not by_guidance) for name, curves in figures.items()]


def name_of(text: str) -> str:
    """A file's name that says the same."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "figure"


def unused(name: str, known: Any) -> str:
    return next(other for i in range(1, len(known) + 2) if (other := name if i == 1 else f"{name}_{i}") not in known)


def save_page(panels: Sequence[Drawing], path: Path, formats: Sequence[str]) -> list[Path]:
    """Panels side by side, in files `path`.FORMAT."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # of the whole of matplotlib, what needs no display

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # says every step of shortening a font
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with rc_context(SETTINGS):
        figure = Figure(figsize=(SIZE[0] * columns, SIZE[1] * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, panel in zip(axes, panels, strict=False):
            draw_panel(axis, panel)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        paths = [path.with_name(f"{path.name}.{kind}") for kind in formats]
        for file_path, kind in zip(paths, formats, strict=True):
            undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            with replacing(file_path) as file:
                figure.savefig(file, format=kind, dpi=200, metadata=undated)
    return paths


def draw_panel(axis: Any, panel: Drawing) -> None:
    ys = [y for curve in panel.curves for _, y in curve.points if fits(y)]
    log = panel.log and bool(ys) and min(ys) > 0
    for curve in panel.curves:
        drawn = [(x, y if fits(y, log) else float("nan")) for x, y in curve.points]
        marker = "." if len(drawn) < 30 else None
        style = {"color": f"C{curve.colour % 10}", "linestyle": DASHES[curve.dash % 4], "marker": marker}
        axis.plot(*zip(*drawn, strict=True), label=literal(curve.name), linewidth=1.2, **style)
    if log:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis, min(ys), max(ys))
    elif panel.from_zero:
        axis.set_ylim(min(0, *ys, 0), 1.1 * max(*ys, 0, 0) or 1)
    if panel.log_x:
        places = sorted({x for curve in panel.curves for x, _ in curve.points})
        axis.set_xscale("log")
        axis.set_xticks(places[:: -(-len(places) // 8)])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    axis.set_title(literal(panel.title), fontsize=9)
    axis.set_xlabel(panel.x_name, fontsize=8)
    axis.tick_params(labelsize=8, which="both")
    axis.grid(alpha=0.3)
    if len(panel.curves) > MOST_INSIDE:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    else:
        axis.legend(framealpha=0.7)


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Numbers beside a logarithmic axis, as many as there is room for."""
    from matplotlib.ticker import LogFormatter, LogLocator

    axis.set_major_formatter("{x:g}")
    if high < 100 * low:
        axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axis.set_minor_formatter("{x:g}")
    else:
        axis.set_minor_formatter(LogFormatter(labelOnlyBase=True))


def literal(text: str) -> str:
    """Text that matplotlib shows as it is; between dollar signs it sees a formula, and hides what begins with `_`."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
