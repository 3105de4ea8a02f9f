"""What a run has made, where it is, and what to try next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_lit.command_line.shell import command_line
from diffusion_lit.terminal.screen import table
from diffusion_lit.terminal.status_line import clock_time

__all__ = ["end_report"]


def end_report(
    run: Path,
    step: int,
    seconds: float,
    metrics: Mapping[str, Any],
    drawing: Mapping[str, object],
    longer: Mapping[str, float],
) -> str:
    """The lines that a run ends with.

    Args:
        run: its folder, absolute.
        step: the last step.
        seconds: how long it took.
        metrics: figures by name; `val/loss` and the FIDs are shown.
        drawing: settings by which it is drawn from.
        longer: settings by which it trains on.
    """
    figures = [f"{k} = {float(v):.4g}" for k, v in metrics.items() if k == "val/loss" or k.startswith("fid/")]
    grids, table_of_figures = sorted((run / "samples").glob("*.png")), run / "metrics.csv"
    last = run / "checkpoints" / "last.ckpt"
    rows: list[tuple[str, str | Path | None]] = [
        ("trained", f"to step {step:,} in {clock_time(seconds)}"),
        ("result", ", ".join(figures) or None),
        ("samples", grids[-1] if grids else None),
        ("metrics", table_of_figures if table_of_figures.is_file() else None),
        ("checkpoint", last if last.is_file() else None),
    ]
    if not last.is_file():  # callback.last_checkpoint=null
        return f"\n{table(rows)}"
    following = [command_line("sample", {"ckpt": run, **drawing}), command_line("train", {"resume": run, **longer})]
    return "\n".join(["", table(rows), "Try next", *(f"  {line}" for line in following)])
