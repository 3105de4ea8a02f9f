"""Where a run begins: anew, or where an earlier one stopped."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion_lit.budget import whole_epochs
from diffusion_lit.checkpoint import damage, damaged_part, load_checkpoint, peek
from diffusion_lit.distributed.ranks import check_seen, from_first_rank
from diffusion_lit.run.settings import ABANDONED, Change, changes

__all__ = [
    *("Origin", "check_origin", "find_earlier_run", "find_origin", "is_finished", "open_origin", "read", "readable"),
    "trained_by",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run begins with."""

    file: Path
    recorded: dict[str, Any]
    """What it holds, apart from its tensors: those stay on the disk."""

    @property
    def step(self) -> int:
        return int(self.recorded["global_step"])

    @property
    def run(self) -> Path:
        """The folder of its run, or the folder it lies in."""
        folder = self.file.parent
        return folder.parent if folder.name == "checkpoints" else folder


def find_origin(path: str | Path) -> Origin:
    """The checkpoint that `path` means: this file, or the newest undamaged one of a run's folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged, or all are.
    """
    path = Path(path)
    if path.is_file():
        recorded, found = peek(path)
        if recorded is None or (found := damaged_part(path)) is not None:
            others = [origin.file for origin in undamaged(path.parent, say=False)]
            hint = f"; undamaged beside it: {others[0]}" if others else ""
            raise ValueError(f"{found}{hint}")
        if not resumable(recorded):
            raise ValueError(f"{path} holds no more than weights: begin a new run with them, init={path}")
        return Origin(path, recorded)
    folder = path / "checkpoints"
    if not folder.is_dir():
        load_checkpoint(path)  # says what is wrong
        raise ValueError(f"{path} holds no more than weights: begin a new run with them, init={path}")
    origin = next(undamaged(folder), None)
    if origin is None:
        raise ValueError(f"no checkpoint in {folder} can be used: start anew without resume, or give another run")
    return origin


def read(file: Path) -> dict[str, Any]:
    """A checkpoint whose tensors stay on the disk until they are used; a ValueError if it is damaged."""
    recorded, found = peek(file)
    if recorded is None:
        raise ValueError(found)
    return recorded


def open_origin(find: Callable[[], Origin | None]) -> Origin | None:
    """The checkpoint that `find` gives the first rank, on all ranks; None where it finds none.

    Raises:
        ValueError, OSError: what `find` raises; on all ranks, if one does not see the checkpoint.
    """
    found: list[Origin] = []

    def name() -> str:
        if (origin := find()) is None:
            return ""
        found.append(origin)
        return str(origin.file)

    if not (file := from_first_rank("RESUME", name)):
        return None
    check_seen(Path(file), f"the checkpoint {file}", "resume=FOLDER")
    return found[0] if found else Origin(Path(file), read(Path(file)))


def resumable(recorded: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has what Lightning continues with."""
    parts = {"loops": dict, "callbacks": dict, "optimizer_states": list, "global_step": int}
    return all(isinstance(recorded.get(name), kind) for name, kind in parts.items())


def undamaged(folder: Path, say: bool = True) -> Iterator[Origin]:
    """The checkpoints of a folder that are whole, the one of the latest step first."""
    yield from verified(readable(folder, say), say)


def readable(folder: Path, say: bool = True) -> list[Origin]:
    """The checkpoints of a folder that say what they are; whether their weights are whole is not known yet."""
    origins = []
    for file in sorted(folder.glob("*.ckpt")):
        recorded, _ = peek(file)
        if recorded is not None and resumable(recorded):
            origins.append(Origin(file, recorded))
        elif say:
            log.warning("left aside: %s", damage(file) or f"{file}, which holds no more than weights")
    return origins


def verified(origins: Iterable[Origin], say: bool = True) -> Iterator[Origin]:
    for origin in sorted(origins, key=lambda o: (-o.step, not is_closed(o), o.file.name != "last.ckpt")):
        if (found := damaged_part(origin.file)) is None:
            yield origin
        elif say:
            log.warning("left aside: %s", found)


def find_earlier_run(cfg: DictConfig, cell: str | None = None) -> Origin | None:
    """What `resume=auto` means: the furthest checkpoint of a run with the same result as `cfg`'s.

    It is looked for below `output_root`; by a job of a sweep in its own folder, which has the same name in each
    repetition of the sweep.

    Runs that agree in all that decides the result take the same steps, so that the furthest is the best of them; how
    long they were to train does not count. Modification times, which clocks and copies change, are not looked at.

    Args:
        cfg: a run's settings, every `auto` replaced.
        cell: in a sweep, the name of the job's folder.
    """
    origins, root = list[Origin](), Path(cfg.output_root)
    below = (path for path in root.glob("**/checkpoints") if ABANDONED not in path.relative_to(root).parts)
    for folder in sorted(below) if cell is None else [Path(cfg.run_dir) / "checkpoints"]:
        for origin in readable(folder):
            if not any(change.decides or change.forbidden for change in changes(origin.recorded, cfg)):
                origins.append(origin)
    return next(verified(origins), None)


def check_origin(origin: Origin, cfg: DictConfig, class_names: list[str] | None) -> list[Change]:
    """What is another setting than the run's was.

    Raises:
        ValueError: if the weights mean nothing under it: another model, or classes of other names or in another order.
    """
    names = origin.recorded.get("class_names", class_names)
    if names != class_names:
        raise ValueError(
            f"cannot resume from {origin.file}: its classes are {names}, and the data's are {class_names}. What the "
            "model learned of a class would be taken for another's: use data with the same classes, or begin with its "
            "weights alone: init instead of resume"
        )
    found = changes(origin.recorded, cfg)
    if forbidden := [change for change in found if change.forbidden]:
        listed = "".join(f"\n  {c.key}: {c.old} in the checkpoint, {c.new} now" for c in forbidden)
        raise ValueError(
            f"cannot resume from {origin.file} with another model:{listed}\nLeave these settings out, which takes the "
            "run's own, or start anew without resume"
        )
    return found


def is_finished(origin: Origin, limits: Mapping[str, float]) -> bool:
    """Whether a run has used up its budget already, and all that follows its last step is done too."""
    done = trained_by(origin)
    return any(done[name] >= limit for name, limit in limits.items()) and is_closed(origin)


def trained_by(origin: Origin) -> dict[str, float]:
    """What a run has trained up to a checkpoint, by the limit that it counts towards (see `Budget`)."""
    progress, states = origin.recorded["loops"]["fit_loop"], origin.recorded["callbacks"].items()
    budget: dict[str, float] = next((state for key, state in states if key.startswith("Budget")), {})
    current, batches = progress["epoch_progress"]["current"], progress["epoch_loop.batch_progress"]
    return {
        "max_steps": origin.step,
        "max_epochs": whole_epochs(current["processed"], current["ready"], batches["is_last_batch"]),
        "max_images": budget.get("images", 0),
        "max_minutes": budget.get("minutes", 0.0),
    }


def is_closed(origin: Origin) -> bool:
    """Whether the run of a checkpoint says that it ended at this step, its last figures and pictures included."""
    try:
        return bool(json.loads((origin.run / "run.json").read_text())["finished"] == origin.step)
    except (OSError, ValueError, KeyError, TypeError):
        return False
