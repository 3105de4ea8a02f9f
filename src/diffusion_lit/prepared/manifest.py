"""What a prepared set is: `manifest.json` beside its shards."""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from diffusion_lit.files import write_json
from diffusion_lit.prepared.shard import ShardInfo
from diffusion_lit.resolution import height_and_width
from diffusion_lit.source.layout import SPLITS
from diffusion_lit.trust.plain import printable, read_as, read_json

__all__ = ["ENCODINGS", "FORMAT", "MANIFEST", "MAX_RESOLUTION", "SHARD", "WORK", "Latents", "Manifest", "Split"]

MANIFEST = "manifest.json"
WORK = ".prepare"
"""The folder beside it that keeps what is known of finished shards until all are."""
FORMAT = "diffusion-lit 1"
ENCODINGS = ("raw", "png", "jpeg")
SHARD = r"shard-\d{5,9}\.bin"
"""Names of shards, in the folder of their split: no other file is read, fetched or written for a set."""
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_RESOLUTION = 2**15


@dataclass(frozen=True)
class Split:
    """One of `train`, `val` and `test`."""

    count: int
    class_counts: list[int] | None
    shards: list[ShardInfo]


@dataclass(frozen=True)
class Latents:
    """The autoencoder whose latents are stored; the model works on (latent - shift) scale."""

    autoencoder: str
    """Its folder."""
    sha256: str
    """Of its weights."""
    scale: float
    shift: float
    factor: int
    """How many pixels a latent is wide."""

    def check(self, encoding: str) -> None:
        """Check what goes into a run's settings.

        Raises:
            ValueError: if it is not what `prepare` writes.
        """
        if encoding != "raw" or self.factor < 1 or not self.scale > 0 or not SHA256.fullmatch(self.sha256):
            raise ValueError("its latents need encoding raw, a factor of at least 1, a positive scale and a SHA-256")
        if "${" in self.autoencoder or self.autoencoder == "???":
            raise ValueError(f"the autoencoder {printable(self.autoencoder)} is an interpolation, and must be a folder")


@dataclass(frozen=True)
class Manifest:
    """A prepared set: images [channels, height, width] in shards, their classes, and where they came from."""

    resolution: int | list[int]
    """Height and width of what is stored; one number where they are alike."""
    channels: int
    encoding: str
    """`raw` bytes [C, H, W], float16 for latents; or `png` or `jpeg` files."""
    class_names: list[str] | None
    splits: dict[str, Split]
    content_hash: str
    """Of the images and classes in order: the same for the same images however they are cut into shards or encoded."""
    source: str
    fit: str
    filter: str
    num_unreadable: int
    plan: str
    """A hash of the source's listing and the settings, by which the same command finds its own work done."""
    latents: Latents | None = None
    format: str = field(default=FORMAT)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, *height_and_width(self.resolution)

    @property
    def item_bytes(self) -> int | None:
        """Bytes of each image; None where they differ."""
        if self.encoding != "raw":
            return None
        return math.prod(self.shape) * (1 if self.latents is None else 2)

    @property
    def shards(self) -> list[ShardInfo]:
        """Those of all splits."""
        return [shard for split in self.splits.values() for shard in split.shards]

    @property
    def shard_hash(self) -> str:
        """A hash of the files, by which a cache distinguishes sets."""
        return hashlib.sha256(json.dumps([(shard.file, shard.sha256) for shard in self.shards]).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write it to `folder`, whole or not at all."""
        write_json(asdict(self), folder / MANIFEST, indent=1)

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read a manifest file.

        Raises:
            ValueError: if it is damaged, or of another version.
        """
        facts = read_json(path)
        found = facts.get("format") if isinstance(facts, dict) else None
        if isinstance(found, str) and found != FORMAT:
            raise ValueError(f"{path} is of the format {printable(found)}, and this version reads {FORMAT!r}")
        try:
            manifest: Manifest = read_as(cls, facts, "it")
            manifest.check()
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); prepare the set again") from error
        return manifest

    def check(self) -> None:
        """Check what a set could not be read without, or would be read or written elsewhere with.

        Raises:
            ValueError: if something is out of range, or does not fit the rest.
        """
        sizes_fit = all(1 <= size <= MAX_RESOLUTION for size in self.shape)
        if not sizes_fit or self.encoding not in ENCODINGS:
            raise ValueError(f"images cannot be {' x '.join(map(str, self.shape))} and {printable(self.encoding)}")
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise ValueError(f"its splits are {printable(list(self.splits))}, and there are {', '.join(SPLITS)}")
        if self.latents is not None:
            self.latents.check(self.encoding)
        for name, split in self.splits.items():
            counts = split.class_counts
            if counts is not None and len(counts) != len(self.class_names or ()):
                raise ValueError(f"{name} counts {len(counts)} classes, and there are {len(self.class_names or ())}")
            if not split.shards or split.count != sum(shard.count for shard in split.shards):
                raise ValueError(f"{name} has {split.count} images, and its shards have others")
            for shard in split.shards:
                if not re.fullmatch(f"{name}/{SHARD}", shard.file):
                    raise ValueError(
                        f"{printable(shard.file)} is not the name of a shard, such as {name}/shard-00000.bin"
                    )
                shard.check(self.item_bytes)
