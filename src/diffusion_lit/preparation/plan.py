"""What is to be prepared, and whether a folder can take it."""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from diffusion_lit.preparation.maker import Job, Maker
from diffusion_lit.prepared.manifest import MANIFEST, WORK, Latents
from diffusion_lit.source.layout import SPLITS

__all__ = [
    "PLAN",
    "REPORT",
    "check_space",
    "claim",
    "held",
    "is_prepared",
    "jobs_of",
    "other",
    "plan_of",
    "refuse_foreign",
    "saying_that_the_disk_is_full",
]

REPORT = "unreadable.txt"
PLAN = "plan"
"""The file in `WORK` that says whose the folder is."""
OURS = re.compile(r"index\.json|shard-\d{5}\.bin(\.\d+\.tmp)?")
"""What there is in a split's folder."""
MAX_SHARD_IMAGES = 4096


def plan_of(maker: Maker, latents: Latents | None, shard_bytes: int) -> str:
    """A hash of everything that decides what is stored."""
    listing = {split: [asdict(entry) for entry in entries] for split, entries in maker.source.splits.items()}
    settings = [asdict(maker.reading), maker.encoding, latents and latents.sha256, shard_bytes]
    facts = [listing, maker.source.class_names, settings]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def claim(out: Path, work: Path, plan: str, overwrite: bool) -> None:
    """Make the folder this plan's.

    Raises:
        ValueError: if it is another's.
    """
    recorded = work / PLAN
    if recorded.is_file() and recorded.read_text() == plan and not (out / MANIFEST).is_file():
        for temporary in out.glob("*/*.tmp"):  # of a killed process
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()
        return
    refuse_foreign(out)
    if recorded.is_file() or is_prepared(out):
        if not overwrite:
            raise ValueError(other(out))
        recorded.write_text("")  # still ours if this ends half-way
    for path in [*(path for path in out.iterdir() if path != work), *work.glob("*.json")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    recorded.write_text(plan)


def is_prepared(out: Path) -> bool:
    """Whether there is a finished set, and not another program's file of the same name."""
    path = out / MANIFEST
    return path.is_file() and '"content_hash"' in path.read_text(errors="replace")


def refuse_foreign(out: Path) -> None:
    """
    Raises:
        ValueError: if there is something in the folder that was not prepared.
    """
    ours = (out / WORK / PLAN).is_file() or is_prepared(out)
    for path in out.iterdir() if out.is_dir() else ():
        if ours and path.is_dir() and path.name in SPLITS:
            foreign = next((inner for inner in path.iterdir() if not OURS.fullmatch(inner.name)), None)
        elif path.name == WORK or (ours and path.name in (MANIFEST, f"{MANIFEST}.tmp", REPORT)):
            foreign = None
        else:
            foreign = path
        if foreign is not None:
            what = "has more in it than a prepared set" if ours else "is no prepared set, but not empty"
            raise ValueError(f"{out} {what} (it has {foreign.relative_to(out)}): choose another out=")


def make_folder(work: Path) -> None:
    """
    Raises:
        ValueError: if it cannot be made.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{work.parent} cannot be written to ({error}); choose another out=") from error


@contextmanager
def held(out: Path, work: Path) -> Iterator[None]:
    """This process's alone.

    Raises:
        ValueError: if another has it.
    """
    lock = FileLock(work / "lock")
    while not lock.is_locked:
        make_folder(work)
        try:
            lock.acquire(timeout=10)  # workers of a killed process let go after a moment
        except FileNotFoundError:  # the other process has finished, and removed the folder
            continue
        except Timeout as error:
            raise ValueError(f"another process is preparing into {out}; wait for it, or choose another out=") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def saying_that_the_disk_is_full(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"{out}: the disk is full. Finished shards are kept: make room, and go on with the same command"
        ) from error


def other(out: Path) -> str:
    return (
        f"{out} was prepared from other images or with other settings: choose another out=, or replace it with "
        "overwrite=true"
    )


def jobs_of(maker: Maker, shard_bytes: int) -> Iterator[Job]:
    """The shards, which depend on nothing but the source and the settings."""
    size = min(MAX_SHARD_IMAGES, max(1, shard_bytes // stored_bytes(maker)))
    for split, entries in maker.source.splits.items():
        for number, begin in enumerate(range(0, len(entries), size)):
            yield Job(split, number, begin, min(begin + size, len(entries)))


def stored_bytes(maker: Maker) -> int:
    """About how many an image takes; exactly, where it is raw."""
    raw = maker.reading.channels * maker.reading.resolution**2
    if maker.latents is not None:
        a = maker.autoencoder
        raw = 2 * a.channels * (maker.reading.resolution // a.factor) ** 2
    return {"raw": raw, "png": raw // 2, "jpeg": raw // 6}[maker.encoding] + 20


def check_space(maker: Maker, jobs: list[Job]) -> None:
    """
    Raises:
        ValueError: if the disk has less room than the jobs need.
    """
    needed = sum(job.end - job.begin for job in jobs) * stored_bytes(maker)
    free = shutil.disk_usage(maker.out).free
    if maker.encoding == "raw" and needed > free:
        raise ValueError(
            f"{maker.out} has {free / 2**30:.1f} GiB free, and {needed / 2**30:.1f} GiB are needed: make room, choose "
            "another out=, a smaller resolution=, or encoding=png"
        )
