"""The folder of one run: who may write to it, and that it is taken away again where there was nothing to do."""

import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from diffusion_lit.budget import doubled
from diffusion_lit.command_line.job import forget
from diffusion_lit.command_line.shell import command_line
from diffusion_lit.distributed.ranks import check_seen, from_first_rank, is_first, launched_by
from diffusion_lit.files import keep, remove_leftovers
from diffusion_lit.run.past import PICTURES, pictures_in
from diffusion_lit.run.resume import Origin, readable, trained_by
from diffusion_lit.run.settings import ABANDONED

__all__ = ["claim", "claim_for_all", "say_finished", "set_aside"]

log = logging.getLogger(__name__)

RECORD = ("config.yaml", "run.json", "code.patch", "metrics.csv", "dashboard.png")
"""Files of a run's folder that each run into it replaces."""
LOCK_PATIENCE = 10.0  # seconds; loading processes of a process that was killed notice it, and let go, after up to 5


def claim_for_all(cfg: DictConfig, origin: Origin | None, first: bool) -> FileLock | None:
    """Take a folder for one run of all its ranks; the lock is the first one's.

    Raises:
        ValueError: on all ranks that a launcher has started, as `claim` does, or if one does not see the folder.
    """
    if launched_by() is None:  # the other ranks are not started yet
        return claim(cfg, origin) if first else None
    locks: list[FileLock] = []
    token = Path(cfg.run_dir) / f".{secrets.token_hex(8)}.{os.getpid()}.partial"  # the first rank's is written

    def take() -> str:
        locks.append(claim(cfg, origin))
        token.touch()
        return str(token)

    try:
        taken = Path(from_first_rank("FOLDER", take))
        named = f"the run folder {taken.parent}"
        check_seen(token.with_name(taken.name), named, "output_root=FOLDER or hydra.run.dir=FOLDER")
    except (ValueError, OSError):
        for lock in locks:
            lock.release()
        raise
    finally:
        token.unlink(missing_ok=True)
    return locks[0] if locks else None


def claim(cfg: DictConfig, origin: Origin | None) -> FileLock:
    """Take a folder for one run of one process.

    Raises:
        ValueError: if it holds another run, or one is being trained in it.
    """
    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    known = (folder / ".lock").exists() or (origin is not None and origin.run.resolve() == folder.resolve())
    if not known and (foreign := next(filter(Path.is_file, (folder / name for name in RECORD)), None)) is not None:
        raise ValueError(f"{foreign} is not of a run in this folder, and would be replaced: use another hydra.run.dir")
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=LOCK_PATIENCE)
    except Timeout as error:
        raise ValueError(f"another process is training in {folder}: stop it first, or choose another folder") from error
    checkpoints = sorted((folder / "checkpoints").glob("*.ckpt"))
    if in_the_way := next(filter(Path.is_dir, checkpoints), None):
        lock.release()
        raise ValueError(f"{in_the_way} is a folder, where a checkpoint goes: move it, or use another hydra.run.dir")
    if checkpoints and (origin is None or origin.run.resolve() != folder.resolve()):
        lock.release()
        raise ValueError(
            f"{folder} holds a run already ({checkpoints[0].name} and more), which would be overwritten. "
            f"Continue it with\n  {command_line('train', {'resume': folder.resolve()})}\n"
            "or choose another hydra.run.dir"
        )
    remove_all_leftovers(folder)
    if origin is not None and origin.run.resolve() != folder.resolve() and (origin.run / ".lock").is_file():
        with suppress(OSError), FileLock(origin.run / ".lock", timeout=0):  # nobody writes there any more
            remove_all_leftovers(origin.run)
    return lock


def set_aside(folder: Path, origin: Origin) -> None:
    """Move what is of later steps than the checkpoint that a run continues from, in its own folder, out of its way.

    That is another branch of training, whose checkpoints and pictures would be taken for this one's, or be replaced,
    and whose figures be cut off. `abandoned/NUMBER` has it as a run's folder, with second names of what both have.
    """
    if origin.run.resolve() != folder.resolve():
        return
    later = [other.file for other in readable(folder / "checkpoints", say=False) if other.step > origin.step]
    if not later:
        return
    aside = next(path for n in count(1) if not (path := folder / ABANDONED / str(n)).exists())
    kept = [*(folder / name for name in RECORD), *(folder / "averages").glob("*"), *(folder / "tensorboard").glob("*")]
    moved = [path for kind in PICTURES for step, path in pictures_in(folder / kind).items() if step > origin.step]
    for file in (*filter(Path.is_file, kept), *moved, *later):
        place = aside / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place) if file in (*moved, *later) else keep(file, place)
    names = ", ".join(file.name for file in later)
    log.warning("continuing from step %d: checkpoints of later steps (%s) are now in %s", origin.step, names, aside)


def remove_all_leftovers(run: Path) -> None:
    for folder in (
        run,
        *(run / name for name in ("checkpoints", "samples", "samples_raw", "denoising", "tensorboard")),
    ):
        remove_leftovers(folder)


def say_finished(cfg: DictConfig, origin: Origin, limits: Mapping[str, float]) -> None:
    """The run is trained to its end: say so, and leave no folder for the run that is not begun.

    Args:
        cfg: settings of the run that is not begun.
        origin: the end.
        limits: what it has reached (see `Budget`).
    """
    run = origin.run.resolve()
    longer = command_line("train", {"resume": run, **doubled(limits, trained_by(origin))})
    if is_first():  # of those that a launcher has started, which would remove the folder from under each other
        print(f"{run} is finished: it was trained to step {origin.step}, and nothing is left to do. To train on")
        print(f"  {longer}")
        if (folder := Path(cfg.run_dir)).resolve() != run and folder.is_dir():
            forget(folder, "train")
