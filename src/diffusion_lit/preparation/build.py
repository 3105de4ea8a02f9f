"""Making a prepared set: in parallel, shard by shard, so that whatever ends the work loses no finished shard."""

import hashlib
import json
import shutil
from pathlib import Path

from tqdm import tqdm

from diffusion_lit.preparation.maker import Job, Maker, Record
from diffusion_lit.preparation.plan import (
    PLAN,
    REPORT,
    check_space,
    claim,
    held,
    is_prepared,
    jobs_of,
    other,
    plan_of,
    refuse_foreign,
    saying_that_the_disk_is_full,
)
from diffusion_lit.preparation.pool import Pool
from diffusion_lit.prepared.manifest import MANIFEST, WORK, Latents, Manifest, Split
from diffusion_lit.prepared.shard import ShardInfo, write_index

__all__ = ["build"]


def build(
    maker: Maker,
    workers: int = 1,
    shard_bytes: int = 2**25,
    max_unreadable: float = 0.01,
    overwrite: bool = False,
) -> Manifest:
    """Prepare all images of the maker's source in its folder, or what is left of them to prepare.

    Args:
        maker: of the shards.
        workers: processes.
        shard_bytes: about how large a shard is.
        max_unreadable: the largest share of images that may be unreadable; they are listed in `unreadable.txt`.
        overwrite: remove what another source, or other settings, have left in the folder.

    Raises:
        ValueError: if there is something else in the folder, it is too small, or too many images are unreadable.
    """
    out, work = maker.out, maker.out / WORK
    latents = latents_of(maker)
    plan = plan_of(maker, latents, shard_bytes)
    if not overwrite and (manifest := made_before(out, plan)) is not None:
        shutil.rmtree(work, ignore_errors=True)
        return manifest
    if not (work / PLAN).is_file():
        refuse_foreign(out)
    with held(out, work), saying_that_the_disk_is_full(out):
        if not overwrite and (manifest := made_before(out, plan)) is not None:  # while this process waited
            shutil.rmtree(work)
            return manifest
        claim(out, work, plan, overwrite)
        jobs = list(jobs_of(maker, shard_bytes))
        done = {job: record for job in jobs if (record := finished(job, out, work)) is not None}
        check_space(maker, [job for job in jobs if job not in done])
        run(maker, jobs, done, workers, max_unreadable)
        report(out, [unreadable for job in jobs for unreadable in done[job].unreadable])
        manifest = describe(maker, jobs, done, plan, latents)
        manifest.save(out)
    shutil.rmtree(work)
    return manifest


def made_before(out: Path, plan: str) -> Manifest | None:
    """What is finished in the folder already.

    Raises:
        ValueError: if it is another plan's.
    """
    if not is_prepared(out):
        return None
    manifest = Manifest.load(out / MANIFEST)
    if manifest.plan != plan:
        raise ValueError(other(out))
    return manifest


def latents_of(maker: Maker) -> Latents | None:
    """
    Raises:
        ValueError: if the autoencoder does not take images of this size.
    """
    if maker.latents is None:
        return None
    a, resolution = maker.autoencoder, maker.reading.resolution
    if resolution % a.factor:
        raise ValueError(f"resolution={resolution} cannot be divided by {a.factor}, as the autoencoder does")
    return Latents(str(Path(maker.latents).resolve()), a.sha256, a.scale, a.shift, a.factor)


def finished(job: Job, out: Path, work: Path) -> Record | None:
    """The record of a shard that is there, whole."""
    path = work / f"{job.name}.json"
    if not path.is_file():
        return None
    try:
        record = Record.load(path)
    except (ValueError, TypeError):  # cut short by a loss of power
        return None
    shard = out / job.file
    there = record.count == 0 or (shard.is_file() and shard.stat().st_size == record.bytes)
    return record if there else None


def run(maker: Maker, jobs: list[Job], done: dict[Job, Record], workers: int, max_unreadable: float) -> None:
    """Do the jobs that are not done, and put their records into `done`."""
    work, total = maker.out / WORK, sum(job.end - job.begin for job in jobs)
    unreadable = [name for record in done.values() for name in record.unreadable]
    check_unreadable(maker.out, unreadable, total, max_unreadable)
    for split in maker.source.splits:
        (maker.out / split).mkdir(exist_ok=True)
    with (
        tqdm(total=total, initial=sum(job.end - job.begin for job in done), desc="preparing", unit="image") as bar,
        Pool(maker, workers) as pool,
    ):
        for job, record in pool.map([job for job in jobs if job not in done]):
            record.save(work / f"{job.name}.json")
            done[job] = record
            unreadable += record.unreadable
            bar.update(job.end - job.begin)
            bar.set_postfix(unreadable=len(unreadable), refresh=False)
            check_unreadable(maker.out, unreadable, total, max_unreadable)


def check_unreadable(out: Path, unreadable: list[tuple[str, str]], total: int, limit: float) -> None:
    """
    Raises:
        ValueError: if they are too many.
    """
    if len(unreadable) <= limit * total:
        return
    report(out, unreadable)
    listed = "".join(f"\n  {name}: {reason}" for name, reason in unreadable[:10])
    more = "\n  ..." if len(unreadable) > 10 else ""
    raise ValueError(
        f"{len(unreadable)} of {total} images cannot be read, over max_unreadable={limit:g}:{listed}{more}\nSee "
        f"{out / REPORT}. Either raise max_unreadable and go on, for finished shards are kept; or repair or remove "
        "them, and start anew with overwrite=true"
    )


def report(out: Path, unreadable: list[tuple[str, str]]) -> None:
    """List the images that are left out, if there are any."""
    if unreadable:
        text = "".join(f"{name}\t{reason}\n" for name, reason in unreadable)
        (out / REPORT).write_text(text, encoding="utf-8", errors="surrogateescape")


def describe(maker: Maker, jobs: list[Job], done: dict[Job, Record], plan: str, latents: Latents | None) -> Manifest:
    """Write each split's index, and say what was made."""
    source, reading = maker.source, maker.reading
    splits: dict[str, Split] = {}
    resolution, channels = reading.resolution, reading.channels
    if latents is not None:
        resolution, channels = resolution // latents.factor, maker.autoencoder.channels
    content = hashlib.sha256(json.dumps([resolution, channels, source.class_names]).encode())
    for split in source.splits:
        mine = [job for job in jobs if job.split == split and done[job].count]
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
        fit=reading.fit,
        filter=reading.filter,
        num_unreadable=sum(len(done[job].unreadable) for job in jobs),
        plan=plan,
        latents=latents,
    )
