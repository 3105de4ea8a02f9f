"""What an evaluation leaves: evaluation.json for programs, evaluation.md for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_lit.derived import leaves
from diffusion_lit.files import replacing, write_json

__all__ = ["FILES", "cell_name", "direction", "listed", "number", "write_report"]

FILES = ("evaluation.json", "evaluation.md", "evaluation.png")
"""The last is the figure of a comparison."""


def write_report(record: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the first two files; their paths."""
    paths = [out / name for name in FILES[:2]]
    write_json(record, paths[0])
    with replacing(paths[1]) as file:
        file.write(markdown(record).encode())
    return paths


def markdown(record: Mapping[str, Any]) -> str:
    """The figures as a table, and the protocol below."""
    results, floor = record["results"], record["floor"]
    lines = ["# Evaluation", ""]
    if len(results) == 1:
        lines += ["| figure | value | noise floor | |", "| --- | --- | --- | --- |"]
        for name, figure in results[0]["figures"].items():
            held = f"{number(floor[name])} ({floor[name]['count']} images)" if name in floor else ""
            features = f"{figure['feature']} features, " if figure.get("feature") else ""
            lines.append(f"| {name} | {number(figure)} | {held} | {features}{direction(figure['better'])} |")
    else:
        names = list(results[0]["figures"])
        lines += [f"| | calls | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
        for result in results:
            calls = result["generated"].get("calls_per_image", "")
            figures = " | ".join(number(result["figures"][name]) for name in names)
            lines.append(f"| {cell_name(result['cell'])} | {calls} | {figures} |")
        if floor:
            held = " | ".join(number(floor[name]) if name in floor else "" for name in names)
            lines.append(f"| real images | | {held} |")
    if record.get("seeds"):
        lines += ["", "Over seeds, the mean and 95 % interval of Student's t:", ""]
        for cell in record["seeds"]:
            for name, (mean, half) in cell["figures"].items():
                lines.append(f"- {cell['cell']}: {name} = {mean:.5g} ± {half:.2g} ({cell['count']} seeds)")
    lines += ["", *(f"- {note}" for note in record["notes"]), ""]
    lines += ["## Protocol", "", "```", *listed(record["protocol"]), "```", "", "## Again", "", "```"]
    return "\n".join([*lines, record["command"], "```", ""])


def number(figure: Mapping[str, float]) -> str:
    """A figure with its standard error, if it has one."""
    error = f" ± {figure['error']:.2g}" if "error" in figure else ""
    return f"{figure['value']:.5g}{error}"


def direction(better: Any) -> str:
    """Which values of a figure are better (see `metrics.Better`), in words; nothing of what a file says otherwise."""
    if better in ("lower", "higher"):
        return f"{better} is better"
    return f"best near {better:g}" if isinstance(better, int | float) else ""


def cell_name(cell: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in cell.items()) or "images"


def listed(values: Mapping[str, Any]) -> list[str]:
    """`a.b: value`, a line each."""
    return [f"{key}: {value}" for key, value in leaves(values).items()]
