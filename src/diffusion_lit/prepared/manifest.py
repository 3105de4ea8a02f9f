"""What a prepared set is: `manifest.json` beside its shards."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusion_lit.prepared.shard import ShardInfo

__all__ = ["FORMAT", "MANIFEST", "WORK", "Latents", "Manifest", "Split"]

MANIFEST = "manifest.json"
WORK = ".prepare"
"""The folder beside it that keeps what is known of finished shards until all are."""
FORMAT = "diffusion-lit 1"


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


@dataclass(frozen=True)
class Manifest:
    """A prepared set: images [channels, resolution, resolution] in shards, their classes, and where they came from."""

    resolution: int
    """Height and width of what is stored."""
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
    def item_bytes(self) -> int | None:
        """Bytes of each image; None where they differ."""
        if self.encoding != "raw":
            return None
        return self.channels * self.resolution**2 * (1 if self.latents is None else 2)

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
        temporary = folder / f"{MANIFEST}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(folder / MANIFEST)

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read a manifest file; a ValueError if it is damaged, or of another version."""
        try:
            facts: dict[str, Any] = json.loads(path.read_text())
            if facts["format"] != FORMAT:
                raise ValueError(f"{path} is of the format {facts['format']!r}, and this version reads {FORMAT!r}")
            facts["splits"] = {
                name: Split(s["count"], s["class_counts"], [ShardInfo(**shard) for shard in s["shards"]])
                for name, s in facts["splits"].items()
            }
            facts["latents"] = None if facts["latents"] is None else Latents(**facts["latents"])
            return cls(**facts)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); prepare the set again") from error
