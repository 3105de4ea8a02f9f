"""One shard of a prepared set: a file of litdata's format, whose items are an image's bytes and its class.

    uint32 n | uint32 offset[n + 1] | n items, each: uint32 image bytes, uint32 8, image, int64 class

Raw images are all of one size, so that a shard of them is an array with a stride, and reading is indexing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_lit.files import checksum, replacing, write_json

__all__ = ["Shard", "ShardInfo", "check_shard", "write_index", "write_shard"]


@dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of a shard."""

    file: str
    """Below the prepared folder."""
    count: int
    bytes: int
    sha256: str

    def check(self, item_bytes: int | None) -> None:
        """Check that a file of so many bytes can hold so many images, each of `item_bytes` where they are raw.

        Raises:
            ValueError: if it cannot.
        """
        smallest = 4 * (self.count + 2) + self.count * (16 + (item_bytes or 0))
        if self.count < 1 or self.bytes < smallest or (item_bytes is not None and self.bytes != smallest):
            raise ValueError(f"{self.file} cannot have {self.count} images in {self.bytes} bytes")


def write_shard(items: Iterable[tuple[bytes, int]], path: Path, count: int) -> dict[str, Any]:
    """Write `count` images and classes to `path`, whole or not at all; returns litdata's description for the index."""
    from litdata.streaming.writer import BinaryWriter

    with replacing(path) as file:
        writer = BinaryWriter(str(path.parent), chunk_size=count + 1)
        writer.write_chunk_to_file = lambda chunk, *_, **__: file.write(chunk)
        for index, (image, label) in enumerate(items):
            writer[index] = (image, label)
        writer.write_chunk(on_done=True)
    return writer.get_config() | {"chunk_size": None}


def write_index(folder: Path, shards: list[ShardInfo], config: dict[str, Any]) -> None:
    """Write litdata's index of a split, with which any reader of litdata's finds its shards."""
    chunks = [
        {"chunk_bytes": shard.bytes, "chunk_size": shard.count, "dim": None, "filename": Path(shard.file).name}
        for shard in shards
    ]
    write_json({"chunks": chunks, "config": config, "updated_at": "0"}, folder / "index.json", indent=None)


def check_shard(path: Path, info: ShardInfo, whole: bool, remedy: str) -> None:
    """Compare a shard's file with what the manifest says: its size and, if `whole`, its checksum.

    A FileNotFoundError if it is not there, and a ValueError if it is not the one that was written.
    """
    if not path.is_file():
        raise FileNotFoundError(f"shard {path} is missing; {remedy}")
    if (size := path.stat().st_size) != info.bytes:
        raise ValueError(f"shard {path} is truncated or overwritten: {size} bytes in place of {info.bytes}; {remedy}")
    if whole and checksum(path) != info.sha256:
        raise ValueError(f"shard {path} is damaged: its content is not what was written (SHA-256 differs); {remedy}")


class Shard:
    """A shard's images and classes, mapped into memory.

    Args:
        path: the file.
        info: what the manifest says of it.
        item_bytes: bytes of each image where they are raw; None where they are encoded.

    Raises:
        ValueError: if the file is not built as the manifest says.
    """

    def __init__(self, path: Path, info: ShardInfo, item_bytes: int | None) -> None:
        check_shard(path, info, False, "copy it again")
        self.data = np.memmap(path, np.uint8, mode="r")
        table = 4 * (info.count + 2)
        offsets = np.array(self.data[4:table]).view("<u4").astype(np.int64)
        sizes = np.diff(offsets)
        whole = offsets[0] == table and offsets[-1] == info.bytes
        if not whole or (sizes < 16).any() or (item_bytes is not None and (sizes != item_bytes + 16).any()):
            raise ValueError(f"shard {path} is damaged: its table of contents is not what was written; copy it again")
        if item_bytes is None:
            self.offsets = offsets
            self.classes = self.data[offsets[1:, None] + np.arange(-8, 0)].view("<i8")[:, 0]
        else:  # where everything is follows from its number
            stride, begin = item_bytes + 16, table + 8
            self.images = np.ndarray((info.count, item_bytes), np.uint8, self.data, begin, (stride, 1))
            self.classes = np.ndarray((info.count,), "<i8", self.data, begin + item_bytes, (stride,))

    def raw(self, indices: np.ndarray) -> np.ndarray:
        """Raw images as bytes [n, item_bytes]."""
        return self.images[indices]

    def encoded(self, index: int) -> np.ndarray:
        """The bytes of one image."""
        return self.data[self.offsets[index] + 8 : self.offsets[index + 1] - 8]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """Classes int64 [n]."""
        return self.classes[indices]
