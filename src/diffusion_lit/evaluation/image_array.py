"""The images of an .npz file, read from it as they are asked for and never together in memory."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from diffusion_lit.source.bands import array_header
from diffusion_lit.source.folder import stamp_of

__all__ = ["NpzImages"]

DAMAGES = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What zipfile and numpy raise for a file that is cut, damaged, or of an unknown kind."""


class NpzImages:
    """Images by number of an .npz as ADM's evaluation writes it: `arr_0`, uint8 [N, H, W, C], and maybe `arr_1`,
    classes int64 [N].

    Compressed or not, the array is a stream: images are cheap in the order of their numbers, and to go back is to begin
    anew. The file's checksum is compared whenever the stream comes to its end.

    Args:
        path: of the file.
        where: what it is called in messages.

    Raises:
        ValueError: if there are no such arrays in it, or it is damaged as far as can be seen without reading all.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where, self.stamp = path, where, stamp_of(path)
        self.stream: IO[bytes] | None = None
        try:
            if not zipfile.is_zipfile(path):
                raise ValueError("it is not an .npz, or is truncated")
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                self.has_statistics = {"mu", "sigma"} <= {*names}  # of pytorch-fid, clean-fid and EDM; ADM has both
                if "arr_0" not in names:
                    remedy = ": such statistics are for metrics.fid.reference=" if self.has_statistics else ""
                    raise ValueError(f"it has no arr_0 [N, H, W, C] in it, but {', '.join(names) or 'nothing'}{remedy}")
                dtype, self.stored, self.start = read_header(archive, "arr_0")
                if dtype != np.uint8 or len(self.stored) != 4 or min(self.stored) < 1:
                    raise ValueError(f"arr_0 must be uint8 [N, H, W, C], and is {dtype} {list(self.stored)}")
                self.labels = read_labels(archive, len(self)) if "arr_1" in names else None
        except DAMAGES as error:
            raise ValueError(f"{where} cannot be read: {error}") from error

    def __len__(self) -> int:
        return self.stored[0]

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W], and their classes [B] or None; a ValueError if the file is damaged there."""
        images = np.empty((len(indices), *self.stored[1:]), np.uint8)
        for row in sorted(range(len(indices)), key=indices.__getitem__):
            images[row] = np.frombuffer(self.read(indices[row]), np.uint8).reshape(self.stored[1:])
        labels = None if self.labels is None else self.labels[list(indices)]
        return torch.from_numpy(images).permute(0, 3, 1, 2), labels

    def read(self, index: int) -> bytes:
        size = math.prod(self.stored[1:])
        try:
            if stamp_of(self.path) != self.stamp:
                raise ValueError("it was changed or removed in the meantime: leave it alone while it is evaluated")
            if self.stream is None:
                self.stream = zipfile.ZipFile(self.path).open("arr_0.npy")  # noqa: SIM115 - it stays open
            if self.stream.tell() != (place := self.start + index * size):
                self.stream.seek(place)
            data = self.stream.read(size)
            if len(data) != size:
                raise ValueError(f"arr_0 ends within image {index}")
        except DAMAGES as error:
            self.stream = None
            raise ValueError(f"{self.where} cannot be read: {error}") from error
        return data


def read_header(archive: zipfile.ZipFile, name: str) -> tuple[np.dtype, tuple[int, ...], int]:
    """The type and shape of an array in numpy's format, and where its numbers begin; a ValueError for objects."""
    with archive.open(f"{name}.npy") as file:
        dtype, shape, by_column = array_header(file, name)
        if by_column and len(shape) > 1:
            raise ValueError(f"{name} is stored column by column: save numpy.ascontiguousarray of it")
        start = file.tell()
    if archive.getinfo(f"{name}.npy").file_size != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} does not hold the {list(shape)} numbers that its header states")
    return dtype, shape, start


def read_labels(archive: zipfile.ZipFile, count: int) -> Tensor:
    """`arr_1`, int64 [count]; a ValueError if it is anything else than whole numbers, one for each image."""
    dtype, shape, _ = read_header(archive, "arr_1")
    if shape != (count,) or dtype.kind not in "iu":
        raise ValueError(f"arr_1 must be whole numbers [{count}], and is {dtype} {list(shape)}")
    with archive.open("arr_1.npy") as file:
        return torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False).astype(np.int64))
