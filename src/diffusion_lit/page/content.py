"""What the page of runs says, as plain values for its template."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from diffusion_lit.evaluation.report import ARROWS, cell_name, listed, number
from diffusion_lit.page.chart import evenly
from diffusion_lit.page.chart import number as short
from diffusion_lit.page.curves import curves_of, evaluation_charts, used_axes
from diffusion_lit.page.picture import as_data
from diffusion_lit.past_run import Evaluation, PastRun
from diffusion_lit.shell import command_line

__all__ = ["content_of"]

MOST_FRAMES, LARGEST = 24, 800
"""Pictures of a run that a page holds, and the pixels of their longer side."""
PARTS = {
    "data": "Data",
    "augmentation": "Augmentation",
    "model": "Network",
    "schedule": "Noise schedule",
    "parameterization": "The network predicts",
    "density": "Training times",
    "weighting": "Weighting",
    "loss": "Loss",
    "sampler": "Sampler",
    "optimizer": "Optimizer",
    "lr_schedule": "Learning rate",
}
WITHIN_OTHERS = ("denoiser.", "module.", "callback.", "hydra.", "run_dir", "output_root", "logger.")
"""Settings that repeat others, or say where things go."""

Row = tuple[str, list[str]]


def content_of(runs: Sequence[PastRun]) -> dict[str, Any]:
    """Everything that the template shows of these runs."""
    left_out = [f"{run.name}: {text}" for run in runs for text in run.left_out]
    content: dict[str, Any] = {
        "title": " against ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        "subtitle": "; ".join(summary(run) for run in runs),
        "runs": [
            {"name": run.name, "commands": commands_of(run), "settings": yaml.safe_dump(run.config, sort_keys=False)}
            for run in runs
        ],
        "trained": [*parts_of(runs), *rows_of(runs, PROGRESS)],
        "differing": differing(runs),
        "axes": used_axes(runs),
        "charts": curves_of(runs),
        "pictures": [shown for run in runs if (shown := pictures_of(run, left_out))["frames"]],
        "evaluations": [evaluation_of(e, run.name, left_out) for run in runs for e in run.evaluations],
        "machine": rows_of(runs, MACHINE),
        "left_out": left_out,
    }
    names = {"trained": "What was trained", "charts": "Curves", "pictures": "Samples", "evaluations": "Evaluation"}
    anchors = {"charts": "curves", "pictures": "samples", "evaluations": "evaluation"}
    sections = [(name, anchors.get(key, key)) for key, name in names.items() if content[key]]
    return content | {"sections": [*sections, ("Machine", "machine"), ("Commands", "commands")]}


def summary(run: PastRun) -> str:
    """One line of a run."""
    best = best_loss(run)
    return f"{run.name}: step {run.step:,}" + (f", best val/loss {best}" if best else "")


def class_of(settings: Any) -> str:
    """`Name (key 1, key 2)` of a part's settings, plain ones alone."""
    if not isinstance(settings, Mapping):
        return "" if settings is None else str(settings)
    name = str(settings.get("_target_", "")).rpartition(".")[2]
    plain = [f"{key} {value}" for key, value in settings.items() if key[:1] != "_" and value not in (None, "auto")]
    return f"{name} ({', '.join(plain)})" if plain else name


def parts_of(runs: Sequence[PastRun]) -> list[Row]:
    """The parts that were chosen."""
    rows = [(name, [class_of(run.config.get(key)) for run in runs]) for key, name in PARTS.items()]
    return [row for row in rows if any(row[1])]


def best_loss(run: PastRun) -> str:
    found = [(row["val/loss"], row["step"]) for row in run.rows if row.get("val/loss", float("nan")) == row.get("val/loss")]
    return f"{short(min(found)[0])} at step {min(found)[1]:,}" if found else ""


def last(run: PastRun, name: str) -> str:
    """The newest value of a figure."""
    values = [row[name] for row in run.rows if name in row]
    return short(values[-1]) if values else ""


def mean(run: PastRun, name: str) -> str:
    values = [row[name] for row in run.rows if name in row]
    return short(sum(values) / len(values)) if values else ""


def recorded(*names: str) -> Callable[[PastRun], str]:
    """A value of run.json, as text."""

    def read(run: PastRun) -> str:
        value: Any = run.record
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {inner}" for key, inner in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)

    return read


def parameters(run: PastRun) -> str:
    value = run.record.get("parameters")
    return short(float(value)) if isinstance(value, int | float) else last(run, "size/parameters")


PROGRESS: dict[str, Callable[[PastRun], str]] = {
    "Parameters": parameters,
    "Training images": lambda run: last(run, "size/train_images"),
    "Batch, all ranks": lambda run: last(run, "size/batch"),
    "Optimizer steps": lambda run: f"{run.step:,}" + ("" if "finished" in run.record else ", not finished"),
    "Images seen": lambda run: last(run, "images_seen"),
    "Epochs": lambda run: last(run, "epoch"),
    "Best val/loss": best_loss,
    "Continues": recorded("parent"),
}
MACHINE: dict[str, Callable[[PastRun], str]] = {
    "Folder": lambda run: str(run.folder),
    "Begun": recorded("started"),
    "Images a second, mean": lambda run: mean(run, "throughput/images_per_s"),
    "Share of waiting for images, mean": lambda run: mean(run, "throughput/data_wait"),
    "Peak memory, GiB": lambda run: last(run, "memory/peak_gib"),
    "Machine": recorded("machine"),
    "Versions": recorded("versions"),
    "Commit": recorded("git", "commit"),
    "Changed files": recorded("git", "changed"),
    "Patch": recorded("git", "patch"),
}


def rows_of(runs: Sequence[PastRun], facts: Mapping[str, Callable[[PastRun], str]]) -> list[Row]:
    """A row for each fact that any run knows."""
    rows = [(name, [read(run) for run in runs]) for name, read in facts.items()]
    return [row for row in rows if any(row[1])]


def differing(runs: Sequence[PastRun]) -> list[Row]:
    """The settings that are not the same in all runs; a dash where a run has none."""
    flat = [dict(line.split(": ", 1) for line in listed(run.config)) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings if not name.startswith(WITHIN_OTHERS))
    rows = [(name, [settings.get(name, "-") for settings in flat]) for name in names]
    return [row for row in rows if len(set(row[1])) > 1]


def pictures_of(run: PastRun, left_out: list[str]) -> dict[str, Any]:
    """The pictures of samples, as many and as large as a page holds."""
    frames, reduced = [], False
    for step in evenly(list(run.grids), MOST_FRAMES):
        try:
            data, smaller = as_data(run.grids[step], LARGEST)
        except ValueError as error:
            left_out.append(f"{run.name}: {error}")
            continue
        frames.append({"step": f"{step:,}", "data": data})
        reduced = reduced or smaller
    notes = [f"{len(frames)} of {len(run.grids)} pictures"] if len(run.grids) > MOST_FRAMES else []
    notes += [f"reduced to {LARGEST} pixels"] if reduced else []
    return {"name": run.name, "frames": frames, "note": f"{', '.join(notes)}." if notes else ""}


def evaluation_of(evaluation: Evaluation, name: str, left_out: list[str]) -> dict[str, Any]:
    """A result's tables, charts and protocol."""
    record, results = evaluation.record, evaluation.record["results"]
    floor, names = record.get("floor") or {}, list(results[0]["figures"])
    if len(results) == 1:
        head = ["", "value", "noise floor", ""]
        table = [
            [key, number(figure), number(floor[key]) if key in floor else "", ARROWS.get(figure.get("better"), "")]
            for key, figure in results[0]["figures"].items()
        ]
    else:
        head = ["", "calls", *names]
        table = [
            [cell_name(one["cell"]), str(one["generated"].get("calls_per_image", ""))]
            + [number(one["figures"][key]) if key in one["figures"] else "" for key in names]
            for one in results
        ]
    pairs = None
    if evaluation.pairs is not None:
        try:
            pairs, _ = as_data(evaluation.pairs, 2 * LARGEST)
        except ValueError as error:
            left_out.append(f"{name}: {error}")
    return {
        "name": f"{name}, {evaluation.path.parent.name}: {results[0].get('count', '?')} images",
        "head": head,
        "table": table,
        "charts": evaluation_charts(evaluation),
        "notes": record.get("notes") or [],
        "pairs": pairs,
        "protocol": "\n".join(listed(record["protocol"])),
        "command": str(record.get("command", "")),
    }


def commands_of(run: PastRun) -> list[tuple[str, str]]:
    """How to repeat a run, to train it on, to draw from it and to evaluate it."""
    found = []
    command, folder = run.record.get("command"), run.record.get("started_in")
    if isinstance(command, list) and folder is not None:
        found.append(("The same again:", f"cd {shlex.quote(str(folder))} && {shlex.join(map(str, command))}"))
    longer = {"resume": run.folder, "trainer.max_steps": 2 * max(run.step, 1)}
    found.append(("Train on, twice as long:", command_line("train", longer)))
    found.append(("Draw from it:", command_line("sample", {"ckpt": run.folder})))
    found.append(("Evaluate it:", command_line("evaluate", {"ckpt": run.folder})))
    return found
