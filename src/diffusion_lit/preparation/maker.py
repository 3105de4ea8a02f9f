"""One shard, from a source's images to a file: what each worker of `build` does."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.files import checksum, write_json
from diffusion_lit.picture.image import as_array
from diffusion_lit.prepared.shard import write_shard
from diffusion_lit.source.base import Source
from diffusion_lit.source.image_file import Reading
from diffusion_lit.trust.plain import read_as, read_json

__all__ = ["STORES", "Job", "Maker", "Record", "encoding_for"]

MAX_RAW = 64  # pixels a side: up to here reading bytes beats decoding files, and they are small
STORES = {"png": (1, 2, 3, 4), "jpeg": (1, 3)}
"""Numbers of channels that an encoding has; raw bytes have any."""

JPEG_QUALITY = 95
LATENT_BATCH = 16


@dataclass(frozen=True)
class Job:
    """The images `begin` to `end` of a split, which make its shard `number`."""

    split: str
    number: int
    begin: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}"

    @property
    def file(self) -> str:
        """Of the shard, below the prepared folder."""
        return f"{self.split}/shard-{self.number:05d}.bin"


@dataclass(frozen=True)
class Record:
    """What is known of a finished shard."""

    count: int
    bytes: int
    sha256: str
    class_counts: dict[str, int]
    digests: list[str]
    """Of each image and its class, in order."""
    unreadable: list[tuple[str, str]]
    """Names and reasons."""
    config: dict[str, Any] | None
    """litdata's, None where no image could be read and there is no shard."""

    def save(self, path: Path) -> None:
        write_json(asdict(self), path, indent=None)

    @classmethod
    def load(cls, path: Path) -> "Record":
        record: Record = read_as(cls, read_json(path), str(path))
        return record


@dataclass(eq=False)
class Maker:
    """Makes shards below a folder.

    Args:
        encoding: `raw`, `png` (without loss) or `jpeg` (with some, at quality 95).
        latents: the folder of an autoencoder whose latents are stored in place of images, or None.
        out: the folder.
    """

    source: Source
    reading: Reading
    encoding: str
    latents: str | None
    out: Path

    def __call__(self, job: Job) -> Record:
        """Write the job's shard; those of its images that cannot be read are left out and reported."""
        images: list[Tensor] = []
        labels: list[int] = []
        unreadable: list[tuple[str, str]] = []
        entries = self.source.splits[job.split][job.begin : job.end]
        for entry, image in zip(entries, self.read(job), strict=True):
            if isinstance(image, Tensor):
                images.append(image)
                labels.append(entry.label)
            else:
                unreadable.append((entry.name, str(image).rsplit("\n", 1)[-1]))
        stored = self.encode_latents(images) if self.latents else images
        digests = [digest(image, label) for image, label in zip(stored, labels, strict=True)]
        counts = dict(Counter(map(str, labels)))
        if not stored:
            return Record(0, 0, "", counts, digests, unreadable, None)
        path = self.out / job.file
        items = ((self.encode(image), label) for image, label in zip(stored, labels, strict=True))
        config = write_shard(items, path, len(stored))
        return Record(len(stored), path.stat().st_size, checksum(path), counts, digests, unreadable, config)

    def read(self, job: Job) -> Iterator[Tensor | ValueError]:
        """The images, or why they cannot be read; in threads where an autoencoder keeps this process busy."""

        def one(index: int) -> Tensor | ValueError:
            try:
                return self.source.read(job.split, index, self.reading)
            except ValueError as error:
                return error

        indices = range(job.begin, job.end)
        if not self.latents:
            yield from map(one, indices)
        else:
            with ThreadPoolExecutor() as threads:
                yield from threads.map(one, indices)

    def encode(self, image: Tensor) -> bytes:
        """Its bytes as they are stored."""
        if self.encoding == "raw":
            return image.contiguous().numpy().tobytes()
        buffer = io.BytesIO()
        options = {"quality": JPEG_QUALITY, "subsampling": 0} if self.encoding == "jpeg" else {}
        Image.fromarray(as_array(image)).save(buffer, self.encoding, **options)
        return buffer.getvalue()

    @cached_property
    def autoencoder(self) -> Any:
        from diffusion_lit.autoencoder import Autoencoder

        assert self.latents is not None
        return Autoencoder(self.latents)

    def encode_latents(self, images: list[Tensor]) -> list[Tensor]:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        batches = [torch.stack(images[i : i + LATENT_BATCH]) for i in range(0, len(images), LATENT_BATCH)]
        return [latent for batch in batches for latent in self.autoencoder.encode(batch.to(device)).half().cpu()]


def encoding_for(reading: Reading) -> str:
    """How images are best stored without loss."""
    small = max(reading.sides) <= MAX_RAW
    return "raw" if small or reading.channels not in STORES["png"] else "png"


def digest(image: Tensor, label: int) -> str:
    """Of what is stored of an image and of its class, whatever the encoding."""
    content = label.to_bytes(8, "little", signed=True) + image.contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
