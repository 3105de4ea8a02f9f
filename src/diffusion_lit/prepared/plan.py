"""What is to be prepared, and whether a folder can take it."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from diffusion_lit.data.layout import SPLITS
from diffusion_lit.prepared.making import Job, Maker
from diffusion_lit.prepared.manifest import MANIFEST, Latents

__all__ = ["REPORT", "check_space", "claim", "jobs_of", "other", "plan_of"]

REPORT = "unreadable.txt"
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
    recorded = work / "plan"
    ours = recorded.is_file() or (out / MANIFEST).is_file()
    if recorded.is_file() and recorded.read_text() == plan and not (out / MANIFEST).is_file():
        return
    there = [path for path in out.iterdir() if path != work]
    if foreign := [path.name for path in there if not ours or path.name not in (MANIFEST, REPORT, *SPLITS)]:
        raise ValueError(f"{out} is no prepared set, but not empty (it has {foreign[0]}): choose another out=")
    if ours and not overwrite:
        raise ValueError(other(out))
    for path in [*there, *work.glob("*.json")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    recorded.write_text(plan)


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
