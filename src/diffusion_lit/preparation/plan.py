"""What is to be prepared."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from diffusion_lit.preparation.maker import Job, Maker
from diffusion_lit.prepared.manifest import Latents

__all__ = ["Plan"]

MAX_SHARD_IMAGES = 4096


@dataclass(eq=False)
class Plan:
    """What a maker is to make, in shards of about `shard_bytes`, and what is known of it before an image is read.

    Raises:
        ValueError: if the autoencoder does not take images of this size.
    """

    maker: Maker
    shard_bytes: int

    def __post_init__(self) -> None:
        self.latents: Latents | None = None
        if (folder := self.maker.latents) is not None:
            a, resolution = self.maker.autoencoder, self.maker.reading.resolution
            if resolution % a.factor:
                raise ValueError(f"resolution={resolution} cannot be divided by {a.factor}, as the autoencoder does")
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
    def shape(self) -> tuple[int, int]:
        """Channels, and height and width, of what is stored."""
        reading, latents = self.maker.reading, self.latents
        if latents is None:
            return reading.channels, reading.resolution
        return self.maker.autoencoder.channels, reading.resolution // latents.factor

    @cached_property
    def stored_bytes(self) -> int:
        """About how many an image takes; exactly, where it is raw."""
        channels, resolution = self.shape
        raw = channels * resolution**2 * (1 if self.latents is None else 2)
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
                f"{out} has {free / 2**30:.1f} GiB free, and {needed / 2**30:.1f} GiB are needed: make room, choose "
                "another out=, a smaller resolution=, or encoding=png"
            )
