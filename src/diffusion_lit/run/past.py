"""A run's folder, read back: what was trained, its figures and pictures, and how it was evaluated."""

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from diffusion_lit.evaluation.comparison import read_result, result_file
from diffusion_lit.logger.csv import read_table
from diffusion_lit.trust.plain import plain, read_json, read_yaml

__all__ = ["Evaluation", "PastRun", "read_evaluation", "read_run", "read_runs"]

T = TypeVar("T")

PICTURES = {"samples": "", "samples_raw": "raw weights", "denoising": "on the way from noise"}
"""Folders of pictures over training, and what they show beside samples of the averaged weights."""
LAST_STEP = 10**12
"""A row of metrics.csv that claims to be of a later step is not one that we wrote."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation.json, and the pictures of closest pairs beside it."""

    path: Path
    record: dict[str, Any]

    @property
    def pairs(self) -> list[Path]:
        return sorted(path for path in self.path.parent.glob("closest_pairs*.png") if path.is_file())


@dataclass(frozen=True)
class PastRun:
    """All of a run that can be read; `left_out` says what cannot."""

    folder: Path
    name: str
    config: dict[str, Any]
    record: dict[str, Any]
    """run.json."""
    rows: list[dict[str, Any]]
    """metrics.csv: a row a step, with `minutes` of training up to there where the time of steps is known."""
    pictures: dict[str, dict[int, Path]]
    """Of each kind in `PICTURES` that there is, by step."""
    evaluations: list[Evaluation] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The newest step that anything is known of."""
        said = [n for n in map(self.record.get, ("step", "finished")) if type(n) is int and n <= LAST_STEP]
        steps = [n for steps in self.pictures.values() for n in steps]
        return max([0, *said, *(row["step"] for row in self.rows), *steps])

    @property
    def is_finished(self) -> bool:
        return "finished" in self.record


Paths = str | Path | Sequence[str | Path] | None


def read_runs(folders: Paths, evaluations: Paths = None) -> list[PastRun]:
    """One run or several, each with the evaluations of it, and with names that tell them apart.

    Args:
        folders: the runs' folders.
        evaluations: more files evaluation.json, or folders of one, which go to the run that they are of, or the first.

    Raises:
        ValueError: if there is no folder, one is given twice, or a file of `evaluations` is not an evaluation.json.
        FileNotFoundError: if a folder is not a run's.
    """
    paths = [path.resolve() for path in several(folders)]
    if not paths:
        raise ValueError("run= is not given: name the folder of a run, run=RUN, or of several, run=[A,B]")
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise ValueError(f"run= has {', '.join(twice)} twice: give each run once")
    runs = [read_run(path, label) for path, label in zip(paths, names_of(paths), strict=True)]
    for path in several(evaluations):
        given = read_evaluation(result_file(path))
        owner = next((run for run in runs if is_of(given, run.folder)), runs[0])
        if all(known.path.resolve() != given.path.resolve() for known in owner.evaluations):
            owner.evaluations.append(given)
    return runs


def several(paths: Paths) -> list[Path]:
    given = [] if paths is None else [paths] if isinstance(paths, str | Path) else paths
    return [Path(path).expanduser() for path in given]


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of these paths that differ."""
    for length in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def read_run(folder: Path, name: str | None = None) -> PastRun:
    """What a run's folder holds. A part that cannot be read is left out, and said to be.

    Raises:
        FileNotFoundError: if it is not a run's folder.
    """
    if not (folder / "config.yaml").is_file() and not (folder / "metrics.csv").is_file():
        what = "has neither config.yaml nor metrics.csv" if folder.is_dir() else "is not a folder"
        raise FileNotFoundError(f"{folder} {what}: give a run's folder, such as outputs/train/RUN")
    left_out: list[str] = []

    def attempt(path: Path, read: Callable[[Path], T], otherwise: T) -> T:
        try:
            return read(path) if path.is_file() else otherwise
        except (ValueError, OSError) as error:
            left_out.append(f"{path.relative_to(folder)}: {error}")
            return otherwise

    own = [attempt(path, read_evaluation, None) for path in sorted(folder.rglob("evaluation.json"))]
    return PastRun(
        folder,
        name or folder.name,
        config=attempt(folder / "config.yaml", read_yaml, {}),
        record=attempt(folder / "run.json", read_record, {}),
        rows=attempt(folder / "metrics.csv", read_rows, []),
        pictures={kind: steps for kind in PICTURES if (steps := pictures_in(folder / kind))},
        evaluations=[*(found for found in own if found is not None), *evaluations_beside(folder)],
        left_out=left_out,
    )


def read_record(path: Path) -> dict[str, Any]:
    """run.json; a ValueError if it holds no values by name."""
    values = plain(read_json(path), str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no values by name")
    return values


def read_rows(path: Path) -> list[dict[str, Any]]:
    """metrics.csv with `minutes`: the time of the steps alone, without validation, pictures and figures."""
    rows = read_table(path)
    if not rows:
        raise ValueError(f"{path} has no rows of figures")
    if any(row["step"] > LAST_STEP for row in rows):
        raise ValueError(f"{path} has steps over {LAST_STEP:,}")
    timed = [row for row in rows if 0 <= row.get("throughput/step_seconds", math.nan) < math.inf]
    minutes, before = 0.0, rows[0]["step"]
    for row in timed:
        minutes += (row["step"] - before) * row["throughput/step_seconds"] / 60
        before = row["step"]
        row["minutes"] = minutes
    if timed:
        rows[0]["minutes"] = 0.0
    return rows


def read_evaluation(path: Path) -> Evaluation:
    """A file evaluation.json.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an evaluation.json.
    """
    return Evaluation(path, dict(read_result(path)))


def evaluations_beside(folder: Path) -> list[Evaluation]:
    """Of a run OUTPUTS/train/RUN those in OUTPUTS/evaluate; what else is there is left alone."""
    found = []
    for path in sorted(folder.parent.parent.glob("evaluate/*/evaluation.json")):
        try:
            evaluation = read_evaluation(path)
        except (ValueError, OSError):
            continue
        if is_of(evaluation, folder):
            found.append(evaluation)
    return found


def is_of(evaluation: Evaluation, folder: Path) -> bool:
    """Whether the command of an evaluation names a run, or a checkpoint in it."""
    try:
        arguments = shlex.split(str(evaluation.record.get("command", "")))
        given = [Path(text.removeprefix("ckpt=")).resolve() for text in arguments if text.startswith("ckpt=")]
    except (ValueError, OSError):
        return False
    return any(path.is_relative_to(folder.resolve()) for path in given)


def pictures_in(folder: Path) -> dict[int, Path]:
    """Files `step_0000100.png` by their steps, in that order."""
    named = {path.stem.removeprefix("step_"): path for path in folder.glob("step_*.png") if path.is_file()}
    found = {int(step): path for step, path in named.items() if step.isascii() and step.isdecimal() and len(step) < 13}
    return dict(sorted(found.items()))
