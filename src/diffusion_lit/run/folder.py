"""The folder of one run: who may write to it, and that it is taken away again where there was nothing to do."""

import logging
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from diffusion_lit.budget import doubled
from diffusion_lit.command_line.shell import command_line
from diffusion_lit.distributed.ranks import check_seen, from_first_rank, launched_by
from diffusion_lit.files import move_aside, remove_leftovers
from diffusion_lit.run.resume import Origin, readable, trained_by

__all__ = ["claim", "claim_for_all", "say_finished", "set_aside"]

log = logging.getLogger(__name__)

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
    """Move the checkpoints of later steps than the one that a run continues from, in its own folder, out of its way.

    They are another branch of training: among those of this one they would be taken for its newest, or replaced.
    """
    if origin.run.resolve() != folder.resolve():
        return
    later = [other.file for other in readable(folder / "checkpoints", say=False) if other.step > origin.step]
    if not later:
        return
    aside = move_aside(later)
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
    print(
        f"{run} is finished: it was trained to step {origin.step}, and nothing is left to do. To train on\n  {longer}"
    )
    folder = Path(cfg.run_dir)
    ours = {".hydra", f"{Path(sys.argv[0]).stem}.log", "train.log"}
    if folder.resolve() != run and folder.is_dir() and {path.name for path in folder.iterdir()} <= ours:
        shutil.rmtree(folder)
