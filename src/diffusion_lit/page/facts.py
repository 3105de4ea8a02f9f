"""What is said of runs in tables: a row a fact, a column a run."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusion_lit.derived import leaves
from diffusion_lit.logger.csv import newest_value
from diffusion_lit.page.chart import number
from diffusion_lit.run.past import PastRun

__all__ = ["Row", "differing", "machine_of", "parts_of", "progress_of", "summary"]

Row = tuple[str, list[str]]
Fact = Callable[[PastRun], str]

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
REPEATED = ("denoiser.", "module.", "hydra.", "run_dir", "output_root")
"""Settings that repeat others, or say where things go."""


def summary(run: PastRun) -> str:
    """A run in a sentence."""
    parameters, images = recorded("parameters")(run), newest(run, "size/train_images")
    model = class_of(run.config.get("model")).partition(" (")[0] or "a network"
    said = f"{model} of {parameters} parameters" if parameters else model
    parts = [class_of(run.config.get(key)).partition(" (")[0] for key in ("schedule", "parameterization", "loss")]
    said += f" with {', '.join(filter(None, parts))}" if any(parts) else ""
    said += f", trained on {images} images" if images else ""
    said += f" for {run.step:,} steps" + (f" of {batch}" if (batch := newest(run, "size/batch")) else "")
    said += f", {epochs} epochs" if (epochs := newest(run, "epoch")) else ""
    best = best_loss(run)
    return f"{said}; " + (f"best validation loss {best}" if best else "not validated")


def parts_of(runs: Sequence[PastRun]) -> list[Row]:
    """The parts that were chosen, with their own settings."""
    return rows_of(runs, {name: lambda run, key=key: class_of(run.config.get(key)) for key, name in PARTS.items()})  # type: ignore[misc]


def class_of(settings: Any) -> str:
    """`Name (key 1, key 2)` of a part's settings, plain ones alone."""
    if not isinstance(settings, Mapping):
        return "" if settings is None else str(settings)
    name = str(settings.get("_target_", "")).rpartition(".")[2]
    shown = {k: v for k, v in settings.items() if k[:1] != "_" and v is not None and not isinstance(v, Mapping)}
    plain = [f"{key} {value}" for key, value in shown.items() if value != "auto"]
    return f"{name} ({', '.join(plain)})" if plain else name


def progress_of(runs: Sequence[PastRun]) -> list[Row]:
    return rows_of(
        runs,
        {
            "Parameters": recorded("parameters"),
            "Training images": lambda run: newest(run, "size/train_images"),
            "Batch, all processes": lambda run: newest(run, "size/batch"),
            "Optimizer steps": lambda run: f"{run.step:,}" + ("" if run.is_finished else ", not finished"),
            "Images seen": lambda run: newest(run, "images_seen"),
            "Epochs": lambda run: newest(run, "epoch"),
            "Best val/loss": best_loss,
            "Figures not finite": not_finite,
            "Continues": recorded("parent"),
        },
    )


def machine_of(runs: Sequence[PastRun]) -> list[Row]:
    return rows_of(
        runs,
        {
            "Folder": lambda run: str(run.folder),
            "Started": recorded("started"),
            "Time of training steps": lambda run: duration(newest_value(run.rows, "minutes")),
            "Images a second, mean": lambda run: mean(run, "throughput/images_per_s"),
            "Share of waiting for images, mean": lambda run: mean(run, "throughput/data_wait"),
            "Share of peak FLOPS, mean": lambda run: mean(run, "throughput/mfu"),
            "Peak memory, GiB": lambda run: newest(run, "memory/peak_gib"),
            "Machine": recorded("machine"),
            "Versions": recorded("versions"),
            "Commit": recorded("git", "commit"),
            "Changed files": recorded("git", "changed"),
        },
    )


def rows_of(runs: Sequence[PastRun], facts: Mapping[str, Fact]) -> list[Row]:
    """A row for each fact that any run knows."""
    rows = [(name, [read(run) for run in runs]) for name, read in facts.items()]
    return [row for row in rows if any(row[1])]


def differing(runs: Sequence[PastRun]) -> list[Row]:
    """The settings that are not the same in all runs that have settings; a dash where a run lacks one."""
    flat = [{key: str(value) for key, value in leaves(run.config).items()} for run in runs]
    known = [settings for settings in flat if settings]
    names = dict.fromkeys(name for settings in known for name in settings if not name.startswith(REPEATED))
    own = [str(run.config.get("run_dir") or run.folder) for run in runs]
    rows = []
    for name in names:
        texts = [settings.get(name, "-") for settings in flat]
        in_place = {text.replace(folder, "") for text, folder in zip(texts, own, strict=True)}
        if len(in_place) > 1:  # beside that each run writes into its own folder
            rows.append((name, texts))
    return rows


def newest(run: PastRun, name: str) -> str:
    value = newest_value(run.rows, name)
    return "" if value is None else number(value)


def mean(run: PastRun, name: str) -> str:
    values = [row[name] for row in run.rows if math.isfinite(row.get(name, math.nan))]
    return number(sum(values) / len(values)) if values else ""


def best_loss(run: PastRun) -> str:
    found = [(row["val/loss"], row["step"]) for row in run.rows if math.isfinite(row.get("val/loss", math.nan))]
    return f"{number(min(found)[0])} at step {min(found)[1]:,}" if found else ""


def not_finite(run: PastRun) -> str:
    """Figures that were NaN or infinite, and how often."""
    counts: dict[str, int] = {}
    for row in run.rows:
        for name, value in row.items():
            if not math.isfinite(value):
                counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name} at {count:,} steps" for name, count in counts.items())


def duration(minutes: float | None) -> str:
    if minutes is None:
        return ""
    return f"{minutes / 60:,.1f} hours" if minutes >= 120 else f"{number(minutes)} minutes"


def recorded(*names: str) -> Fact:
    """A value of run.json, as text."""

    def read(run: PastRun) -> str:
        value: Any = run.record
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return text_of(value)

    return read


def text_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text_of(inner)}" for key, inner in value.items() if inner not in (None, []))
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
