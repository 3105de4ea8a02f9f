"""Making a prepared set: in parallel, shard by shard, so that whatever ends the work loses no finished shard."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from diffusion_lit.counted import memory
from diffusion_lit.preparation.maker import Job, Maker, Record
from diffusion_lit.preparation.pool import Pool
from diffusion_lit.preparation.workspace import REPORT, Workspace
from diffusion_lit.prepared.manifest import Latents, Manifest, Split
from diffusion_lit.prepared.shard import ShardInfo, write_index
from diffusion_lit.resolution import shortest
from diffusion_lit.terminal.progress import progress

__all__ = ["Plan", "build"]

MAX_SHARD_IMAGES = 4096


@dataclass(eq=False)
class Plan:
    """What a maker is to make, in shards of about `shard_bytes`; a ValueError if the autoencoder cannot encode it."""

    maker: Maker
    shard_bytes: int

    def __post_init__(self) -> None:
        self.latents: Latents | None = None
        if (folder := self.maker.latents) is not None:
            a, reading = self.maker.autoencoder, self.maker.reading
            if any(side % a.factor for side in reading.sides):
                raise ValueError(
                    f"resolution={reading.resolution} cannot be divided by {a.factor}, as the autoencoder does"
                )
            self.latent_shape = a.shape_of(reading.channels, *reading.sides)
            self.latents = Latents(str(Path(folder).resolve()), a.sha256, a.scale, a.shift, a.factor)

    @cached_property
    def hash(self) -> str:
        """Of everything that decides what is stored."""
        source, maker = self.maker.source, self.maker
        listing = {split: [asdict(entry) for entry in entries] for split, entries in source.splits.items()}
        latents = None if self.latents is None else self.latents.sha256
        facts = [listing, source.class_names, [asdict(maker.reading), maker.encoding, latents, self.shard_bytes]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is stored."""
        reading = self.maker.reading
        return (reading.channels, *reading.sides) if self.latents is None else self.latent_shape

    @cached_property
    def stored_bytes(self) -> int:
        """About how many an image takes; exactly, where it is raw."""
        raw = math.prod(self.shape) * (1 if self.latents is None else 2)
        return {"raw": raw, "png": raw // 2, "jpeg": raw // 6}[self.maker.encoding] + 20

    @cached_property
    def jobs(self) -> list[Job]:
        """The shards, which depend on nothing but the source and the settings."""
        size = min(MAX_SHARD_IMAGES, max(1, self.shard_bytes // self.stored_bytes))
        return [
            Job(split, number, begin, min(begin + size, len(entries)))
            for split, entries in self.maker.source.splits.items()
            for number, begin in enumerate(range(0, len(entries), size))
        ]

    def check_space(self, jobs: list[Job]) -> None:
        """Refuse a disk that has less room than the jobs need."""
        out = self.maker.out
        needed = sum(job.end - job.begin for job in jobs) * self.stored_bytes
        free = shutil.disk_usage(out).free
        if self.maker.encoding == "raw" and needed > free:
            raise ValueError(
                f"{out} has {memory(free)} free, and {memory(needed)} are needed: make room, choose "
                "another out=, a smaller resolution=, or encoding=png"
            )


def build(
    maker: Maker, workers: int = 1, shard_bytes: int = 2**25, max_unreadable: float = 0.01, overwrite: bool = False
) -> Manifest:
    """Prepare all images of the maker's source in its folder, or what is left of them to prepare.

    Args:
        maker, workers: what is made, and where, and by how many processes.
        shard_bytes: about how large a shard is.
        max_unreadable: the largest share of images that may be unreadable; they are listed in `unreadable.txt`.
        overwrite: remove what another source, or other settings, have left in the folder.

    Raises:
        ValueError: if there is something else in the folder, it is too small, or too many images are unreadable.
    """
    plan, workspace = Plan(maker, shard_bytes), Workspace(maker.out)
    try:
        manifest = None if overwrite else workspace.made_before(plan.hash)
        if manifest is None:
            with workspace.locked():
                manifest = None if overwrite else workspace.made_before(plan.hash)  # while this process waited
                if manifest is None:
                    workspace.claim(plan.hash, overwrite)
                    manifest = make(plan, workspace, workers, max_unreadable)
    except ValueError:
        workspace.leave()
        raise
    workspace.close()
    return manifest


def make(plan: Plan, workspace: Workspace, workers: int, max_unreadable: float) -> Manifest:
    """Do the plan's jobs that are not done, and say what was made."""
    done = {job: record for job in plan.jobs if (record := workspace.finished(job)) is not None}
    plan.check_space([job for job in plan.jobs if job not in done])
    total = sum(job.end - job.begin for job in plan.jobs)
    unreadable = [name for record in done.values() for name in record.unreadable]
    check_unreadable(workspace, unreadable, total, max_unreadable)
    with (
        progress("preparing", total, "images", done=sum(job.end - job.begin for job in done)) as work,
        Pool(plan.maker, workers) as pool,
    ):
        for job, record in pool.map([job for job in plan.jobs if job not in done]):
            workspace.finish(job, record)
            done[job] = record
            unreadable += record.unreadable
            work.phase.figures = [f"{len(unreadable)} unreadable"] if unreadable else []
            work.advance(job.end - job.begin)
            check_unreadable(workspace, unreadable, total, max_unreadable)
    workspace.report([unreadable for job in plan.jobs for unreadable in done[job].unreadable])
    manifest = describe(plan, done)
    manifest.save(plan.maker.out)
    return manifest


def check_unreadable(workspace: Workspace, unreadable: list[tuple[str, str]], total: int, limit: float) -> None:
    """Refuse too many images that cannot be read, and report them."""
    if len(unreadable) <= limit * total:
        return
    workspace.report(unreadable)
    listed = "".join(f"\n  {name}: {reason}" for name, reason in unreadable[:10])
    more = "\n  ..." if len(unreadable) > 10 else ""
    raise ValueError(
        f"{len(unreadable)} of {total} images cannot be read, over max_unreadable={limit:g}:{listed}{more}\nSee "
        f"{workspace.out / REPORT}. Either raise max_unreadable and run the command again, for finished shards are "
        "kept; or repair or remove them, and start anew with overwrite=true"
    )


def describe(plan: Plan, done: Mapping[Job, Record]) -> Manifest:
    """Write each split's index, and say what was made."""
    maker, source, (channels, *sides) = plan.maker, plan.maker.source, plan.shape
    resolution = shortest(*sides)
    splits: dict[str, Split] = {}
    content = hashlib.sha256(json.dumps([resolution, channels, source.class_names]).encode())
    for split in source.splits:
        mine = [job for job in plan.jobs if job.split == split and done[job].count]
        records = [done[job] for job in mine]
        if not records:
            raise ValueError(f"no image of the split {split} of {source.description} can be read")
        shards = [ShardInfo(job.file, r.count, r.bytes, r.sha256) for job, r in zip(mine, records, strict=True)]
        assert records[0].config is not None
        write_index(maker.out / split, shards, records[0].config)
        classes = range(len(source.class_names)) if source.class_names else None
        counts = None if classes is None else [sum(r.class_counts.get(str(c), 0) for r in records) for c in classes]
        splits[split] = Split(sum(shard.count for shard in shards), counts, shards)
        content.update(f"{split} {splits[split].count}\n".encode())
        content.update("".join(digest for record in records for digest in record.digests).encode())
    return Manifest(
        resolution=resolution,
        channels=channels,
        encoding=maker.encoding,
        class_names=source.class_names,
        splits=splits,
        content_hash=content.hexdigest(),
        source=source.description,
        fit=maker.reading.fit,
        filter=maker.reading.filter,
        num_unreadable=sum(len(record.unreadable) for record in done.values()),
        plan=plan.hash,
        latents=plan.latents,
    )
