"""What an evaluation leaves: evaluation.json for programs, evaluation.md for people, and a figure of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_lit.files import replacing, write_json
from diffusion_lit.picture.image import save_figure

__all__ = ["FILES", "cell_name", "direction", "lines_of", "listed", "number", "write_report"]

FILES = ("evaluation.json", "evaluation.md", "evaluation.png")


def write_report(record: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the files; their paths."""
    paths = [out / name for name in FILES[:2]]
    write_json(record, paths[0])
    with replacing(paths[1]) as file:
        file.write(markdown(record).encode())
    if len(record["results"]) > 1:
        paths.append(out / FILES[2])
        draw(record, paths[-1])
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


def listed(values: Mapping[str, Any], key: str = "") -> list[str]:
    """`a.b: value`, a line each."""
    lines: list[str] = []
    for name, value in values.items():
        place = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and value:
            lines += listed(value, place)
        else:
            lines.append(f"{place}: {value}")
    return lines


def lines_of(results: Sequence[Mapping[str, Any]]) -> tuple[bool, dict[str, dict[str, list[tuple[float, float]]]]]:
    """What a figure of a comparison shows: whether it is against guidance and not network calls, and its lines.

    It is against guidance where that varies and the number of steps does not. A line is named by what else differs, and
    has points for each figure.
    """
    by_guidance = "guidance" in results[0]["cell"] and "steps" not in results[0]["cell"]
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for result in results:
        left_out = ("steps", "seed", "guidance" if by_guidance else "")
        line = cell_name({key: value for key, value in result["cell"].items() if key not in left_out})
        x = result["cell"]["guidance"] if by_guidance else result["generated"]["calls_per_image"]
        for name, figure in result["figures"].items():
            lines.setdefault(line, {}).setdefault(name, []).append((x, figure["value"]))
    return by_guidance, lines


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Each figure against network calls an image, or guidance (see `lines_of`); a line for each of the rest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by_guidance, lines = lines_of(record["results"])
    names = list(record["results"][0]["figures"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    picture, axes = plt.subplots(
        rows, columns, figsize=(4.5 * columns, 3.4 * rows), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for line, points in lines.items():
            axis.plot(*zip(*sorted(points[name]), strict=True), marker="o", label=line)
        if name in record["floor"]:
            axis.axhline(record["floor"][name]["value"], color="grey", linestyle=":", label="real images")
        axis.set(xlabel="guidance" if by_guidance else "network calls an image", ylabel=name)
        if not by_guidance:
            axis.set_xscale("log")
            axis.set_xticks(sorted({x for points in lines.values() for x, _ in points[name]}))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    axes.flat[0].legend(fontsize="small")
    save_figure(picture, path)
    plt.close(picture)
