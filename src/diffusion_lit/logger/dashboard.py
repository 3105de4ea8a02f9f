"""A run's figures on one page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusion_lit.noise_level import LEVELS
from diffusion_lit.picture.image import save_figure

__all__ = ["draw_dashboard", "panels_of"]

Row = dict[str, Any]
AXES = ("step", "epoch", "images_seen")
COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """Curves that are drawn together."""

    title: str
    names: Sequence[str]
    log: bool = False
    """Whether the axis is logarithmic, where all values are positive and not near each other."""
    from_zero: bool = False
    """Whether the axis begins at 0, so that a small change looks small."""


def by_level(split: str) -> list[str]:
    return [f"{split}/loss_{level}" for level in LEVELS]


PANELS = (
    Panel("loss", ["train/loss", "val/loss", "val/loss_raw"], log=True),
    Panel("training loss by noise level", by_level("train"), log=True),
    Panel("validation loss by noise level", by_level("val"), log=True),
    Panel("gradient norm before clipping", ["train/grad_norm"], log=True),
    Panel("clipped share, gradients not finite", ["train/clipped", "train/not_finite"], from_zero=True),
    Panel("learning rate", ["train/lr"]),
    Panel("images a second", ["throughput/images_per_s"], from_zero=True),
    Panel("shares: waiting for images, of peak FLOPS", ["throughput/data_wait", "throughput/mfu"], from_zero=True),
    Panel("memory", ["memory/peak_gib"], from_zero=True),
)
APART = ("throughput/step_seconds", "size/")
"""Figures that say what another panel does, and those that are in the title."""


def panels_of(rows: Sequence[Row]) -> list[Panel]:
    """The panels that these rows have figures for; figures of no fixed panel are drawn by their first word."""
    names = dict.fromkeys(name for row in rows for name in row if name not in AXES and not name.startswith(APART))
    fixed = [replace(p, names=[name for name in p.names if name in names]) for p in PANELS]
    known = {name for panel in fixed for name in panel.names}
    rest: dict[str, list[str]] = {}
    for name in sorted(names.keys() - known):
        rest.setdefault(name.partition("/")[0], []).append(name)
    return [panel for panel in fixed if panel.names] + [Panel(word, group) for word, group in rest.items()]


def draw_dashboard(rows: Sequence[Row], path: Path, title: str = "") -> None:
    """One PNG of all figures against the optimizer steps; none where there is nothing to draw, as after a step or two.

    Args:
        rows: as `read_table` gives them, in the order of steps.
        path, title: where it goes, and what is written above.
    """
    from matplotlib.figure import Figure  # of the whole of matplotlib, what needs no display

    panels = panels_of(rows)
    if not panels:
        return
    height = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(5.2 * COLUMNS, 0.7 + 3.1 * height), layout="constrained")
    figure.suptitle(f"{title}\n{summary(rows)}".strip(), fontsize=11, parse_math=False)
    axes = figure.subplots(height, COLUMNS, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        draw_panel(axis, panel, rows)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[max(len(panels) - COLUMNS, 0) : len(panels)]:
        axis.set_xlabel("optimizer steps")
    save_figure(figure, path)


def draw_panel(axis: Any, panel: Panel, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import LogLocator

    values: list[float] = []
    for name in panel.names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        finite = [value for _, value in points if math.isfinite(value)]
        values += finite
        short = name.partition("/")[2] if len({n.partition("/")[0] for n in panel.names}) == 1 else name
        label = f"{short}  {points[-1][1]:.4g}"
        axis.plot(*zip(*points, strict=True), label=label, linewidth=1.2, marker="." if len(finite) < 30 else None)
    logarithmic = panel.log and bool(values) and min(values) > 0 and max(values) > 3 * min(values)
    if logarithmic:
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    elif panel.from_zero:
        axis.set_ylim(0, 1.1 * max(map(abs, values), default=0) or 1)
    axis.set_xlim(0, max(rows[-1]["step"], 1) * 1.02)
    axis.set_title(panel.title, fontsize=10)
    axis.grid(alpha=0.3, which="both" if logarithmic else "major")
    axis.legend(fontsize=8, framealpha=0.7)


def summary(rows: Sequence[Row]) -> str:
    """How far the run is, how large its parts are, and its best validation loss."""
    newest: Row = {name: value for row in rows for name, value in row.items()}
    said = [f"step {newest['step']:,}"] if rows else []
    for name, words in (("images_seen", "{:,.0f} images seen"), ("epoch", "epoch {:.4g}")):
        said += [words.format(newest[name])] if name in newest else []
    for name, words in (("parameters", "{:,.0f} parameters"), ("train_images", "{:,.0f} training images")):
        said += [words.format(newest[f"size/{name}"])] if f"size/{name}" in newest else []
    said += [f"batch {newest['size/batch']:.0f}"] if "size/batch" in newest else []
    losses = [(row["val/loss"], row["step"]) for row in rows if math.isfinite(row.get("val/loss", math.nan))]
    said += ["best val/loss {:.4g} at step {:,}".format(*min(losses))] if losses else []
    return ", ".join(said)
