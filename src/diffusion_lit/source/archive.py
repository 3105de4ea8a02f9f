"""Images in archives from anywhere: nothing is unpacked; malicious or malformed members are rejected by name."""

import bz2
import glob
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from filelock import FileLock

from diffusion_lit.files import remove_leftovers, replacing
from diffusion_lit.source.base import FileSource

__all__ = ["COMPRESSED", "TarSource", "ZipSource", "decompressed"]

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MAX_RATIO = 200  # of a compressed tar file: images hardly shrink


class ZipSource(FileSource):
    """The images of a ZIP file; a ValueError if it is damaged, encrypted, or has names or links that leave it."""

    wrapped = True

    def __init__(self, path: Path, val_fraction: float) -> None:
        self.path = path
        self.description = str(path)
        self.opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a ZIP file, or is damaged ({error}); fetch it again") from error
        refuse_escapes(self.description, (info.filename for info in infos))
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ValueError(f"{path}: {info.filename} is a link; archives with links are refused")
            if info.flag_bits & 1:
                raise ValueError(f"{path}: {info.filename} is encrypted; unpack the archive and give the folder")
        # Some Windows programs write backslashes.
        names = [str(PurePosixPath(info.filename.replace("\\", "/"))) for info in infos]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{path} has several files named {twice[0]}; unpack it and give the folder")
        self.members = dict(zip(names, infos, strict=True))
        stamps = {name: f"{info.file_size} {info.CRC}" for name, info in self.members.items()}
        self.arrange(stamps, val_fraction)

    def open(self, name: str, max_bytes: int) -> BinaryIO:
        info = self.members[name]
        refuse_large(name, info.file_size, max_bytes)
        if self.opened is None or self.opened[0] != os.getpid():  # a file's position is shared with forked processes
            self.opened = (os.getpid(), zipfile.ZipFile(self.path))
        try:
            return io.BytesIO(self.opened[1].read(info))
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, NotImplementedError) as error:
            raise ValueError(f"{name} cannot be unpacked from {self.path} ({error})") from error

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"opened": None}


class TarSource(FileSource):
    """The images of an uncompressed tar file; a ValueError if it is damaged, or has names or links that leave it.

    `description` stands for the path in messages and in the manifest.
    """

    wrapped = True

    def __init__(self, path: Path, val_fraction: float, description: str | None = None) -> None:
        self.path = path
        self.description = where = description or str(path)
        size = path.stat().st_size
        try:
            members = list(tar_members(path))
        except (tarfile.TarError, OSError) as error:
            raise ValueError(f"{where} is not a tar file, or is damaged ({error}); fetch it again") from error
        refuse_escapes(where, (member.name for member in members))
        for member in members:
            if member.issym() or member.islnk():
                raise ValueError(f"{where}: {member.name} is a link; archives with links are refused")
            if not member.isreg() or member.issparse():
                raise ValueError(f"{where}: {member.name} is not an ordinary file, which is refused")
            if member.offset_data + member.size > size:
                raise ValueError(f"{where} is truncated in {member.name}; fetch it again")
        # Of several files of one name the last counts, as in `tar`.
        named = {str(PurePosixPath(member.name)): member for member in members}
        self.places = {name: (member.offset_data, member.size) for name, member in named.items()}
        self.arrange({name: f"{member.size} {member.mtime}" for name, member in named.items()}, val_fraction)

    def open(self, name: str, max_bytes: int) -> BinaryIO:
        offset, size = self.places[name]
        refuse_large(name, size, max_bytes)
        with self.path.open("rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))


def decompressed(path: Path, folder: Path) -> Path:
    """A compressed tar file, decompressed into `folder` and kept there; a ValueError if it is damaged, or a bomb."""
    compressed = path.stat()
    target = folder / f"{path.name}.{compressed.st_size}.{compressed.st_mtime_ns}.tar"
    limit = MAX_RATIO * compressed.st_size + 2**20
    try:
        with FileLock(f"{target}.lock"):  # another process that wants it waits
            if target.exists():
                return target
            remove_leftovers(folder, glob.escape(target.name))
            with COMPRESSED[path.suffix.lower()](path, "rb") as source, replacing(target) as file:
                while block := source.read(2**20):
                    file.write(block)
                    if file.tell() > limit:
                        raise ValueError(f"{path} grows to {MAX_RATIO} times its size: refused as a decompression bomb")
    except (OSError, lzma.LZMAError, zlib.error, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the decompressor's
            raise
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from error
    return target


def tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """All but folders; a TarError if it is damaged, which tarfile takes for its end after the first member."""
    with tarfile.open(path, "r:") as archive:
        name = ""
        for member in archive:
            name = member.name
            if member.size < 0:  # would go round for ever
                raise tarfile.ReadError(f"{name} says it has {member.size} bytes")
            if not member.isdir():
                yield member
        with path.open("rb") as file:
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"what follows {name} is neither a file nor the end")


def refuse_escapes(archive: str, names: Iterable[str]) -> None:
    """Refuse names that would lie outside the folder that an archive is unpacked into."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if not path.parts or path.is_absolute() or ".." in path.parts or path.parts[0][1:2] == ":":
            raise ValueError(f"{archive}: {name} leads out of the archive, which is refused; do not trust its source")


def refuse_large(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{name} is of {size} bytes, more than any image within max_pixels has ({limit})")
