"""A run's folder, read back: what was trained, its figures and pictures, and how it was evaluated."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_lit.csv_logger import read_table
from diffusion_lit.evaluation.comparison import read_result
from diffusion_lit.plain import plain, read_json, read_yaml

__all__ = ["Evaluation", "PastRun", "read_evaluation", "read_run", "read_runs"]

PAIRS = "closest_pairs.png"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation.json, and the picture of the closest pairs beside it, if there is one."""

    path: Path
    record: dict[str, Any]

    @property
    def pairs(self) -> Path | None:
        picture = self.path.with_name(PAIRS)
        return picture if picture.is_file() else None


@dataclass(frozen=True)
class PastRun:
    """All of a run that can be read; `left_out` says what cannot."""

    folder: Path
    name: str
    config: dict[str, Any]
    record: dict[str, Any]
    """run.json."""
    rows: list[dict[str, Any]]
    """metrics.csv: a row a step."""
    grids: dict[int, Path]
    """The pictures of samples by step."""
    evaluations: list[Evaluation] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The newest step that anything is known of."""
        return max([0, *(row["step"] for row in self.rows), *self.grids])


def read_runs(folders: Sequence[str | Path], evaluations: Sequence[str | Path] = ()) -> list[PastRun]:
    """Several runs, each with the evaluations of it, and with names that tell them apart.

    Args:
        folders: the runs' folders.
        evaluations: more files evaluation.json, or folders of one, which go to the run that they are of, or the first.

    Raises:
        ValueError: if a folder is given twice, or a file of `evaluations` is not an evaluation.json.
        FileNotFoundError: if a folder is not a run's.
    """
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    if not paths:
        raise ValueError("run=RUN is not given: one folder of a run, or several, run=[A,B]")
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise ValueError(f"run= has {', '.join(twice)} twice: give each run once")
    names = [path.name for path in paths]
    labels = [path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}" for path in paths]
    runs = [read_run(path, label) for path, label in zip(paths, labels, strict=True)]
    for path in map(Path, evaluations):
        given = read_evaluation(path / "evaluation.json" if path.is_dir() else path)
        owner = next((run for run in runs if is_of(given, run.folder)), runs[0])
        if all(known.path.resolve() != given.path.resolve() for known in owner.evaluations):
            owner.evaluations.append(given)
    return runs


def read_run(folder: Path, name: str | None = None) -> PastRun:
    """What a run's folder holds. A part that cannot be read is left out, and said to be.

    Raises:
        FileNotFoundError: if it is not a run's folder.
    """
    if not (folder / "config.yaml").is_file() and not (folder / "metrics.csv").is_file():
        what = "has neither config.yaml nor metrics.csv" if folder.is_dir() else "is not a folder"
        raise FileNotFoundError(f"{folder} {what}: give a run's folder, such as outputs/train/RUN")
    left_out: list[str] = []

    def attempt(file: str, read: Any, otherwise: Any) -> Any:
        try:
            return read(folder / file) if (folder / file).is_file() else otherwise
        except (ValueError, OSError) as error:
            left_out.append(f"{file}: {error}")
            return otherwise

    run = PastRun(
        folder,
        name or folder.name,
        config=attempt("config.yaml", read_settings, {}),
        record=attempt("run.json", read_settings, {}),
        rows=attempt("metrics.csv", read_table, []),
        grids=grids_of(folder / "samples"),
        left_out=left_out,
    )
    for path in sorted([*folder.rglob("evaluation.json"), *folder.parent.parent.glob("evaluate/*/evaluation.json")]):
        try:
            found = read_evaluation(path)
        except (ValueError, OSError) as error:
            if path.is_relative_to(folder):
                left_out.append(f"{path.relative_to(folder)}: {error}")
            continue
        if path.is_relative_to(folder) or is_of(found, folder):
            run.evaluations.append(found)
    return run


def read_settings(path: Path) -> dict[str, Any]:
    """A YAML or JSON file of plain values by name."""
    if path.suffix != ".json":
        return read_yaml(path)
    values = plain(read_json(path), str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no values by name")
    return values


def read_evaluation(path: Path) -> Evaluation:
    """A file evaluation.json; a ValueError or FileNotFoundError if it is not one."""
    return Evaluation(path, dict(read_result(path)))


def is_of(evaluation: Evaluation, folder: Path) -> bool:
    """Whether the command of an evaluation names a run, or a checkpoint in it."""
    try:
        arguments = shlex.split(str(evaluation.record.get("command", "")))
    except ValueError:
        return False
    given = [text.removeprefix("ckpt=") for text in arguments if text.startswith("ckpt=")]
    return any(Path(text).resolve().is_relative_to(folder.resolve()) for text in given)


def grids_of(folder: Path) -> dict[int, Path]:
    """Pictures `step_0000100.png` by their steps, in that order."""
    found = {path.stem.removeprefix("step_"): path for path in folder.glob("step_*.png")}
    return {int(step): found[step] for step in sorted(found, key=lambda step: step.zfill(20)) if step.isdecimal()}
