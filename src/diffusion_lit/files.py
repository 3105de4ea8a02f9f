"""Files that are whole, or not there."""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from diffusion_lit.counted import memory

__all__ = [
    *("UnwritableError", "behind", "checksum", "final_name", "is_full", "keep", "refuse_folders"),
    *("remove_empty", "remove_leftovers", "replacement", "replacing", "write_json"),
]

log = logging.getLogger(__name__)

LEFTOVER = ".{name}.{pid}.partial"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)

OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How a library that is written in Rust, as safetensors is, says the system's number of an error."""


class UnwritableError(ValueError):
    """A file could not be written: the disk is full or read-only, or something is in the way.

    The message says what to do about that; how to go on then, only the command knows that was given.
    """


@contextmanager
def replacement(path: str | Path, flushed: bool = True) -> Iterator[Path]:
    """A name for a file, which takes the place of `path` once it is complete and on the disk.

    It is beside its place, on the same file system; the file is flushed to the disk and renamed: whenever the process
    or the machine ends, `path` is the old file or the new one, whole.

    Args:
        path: the place.
        flushed: whether to wait for the disk. Without it the machine, not the process, may end with an empty file: for
            many small files, which are checked before they are taken for whole.

    Raises:
        UnwritableError: if the disk is full or read-only, the place is taken by a folder, or its folder by a file.
    """
    path, size = Path(path), 0
    partial = path.with_name(LEFTOVER.format(name=path.name, pid=os.getpid()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if flushed:
            flush(partial, os.O_RDWR)
        partial.replace(path)
        if flushed:
            with suppress(OSError):  # not all systems can open a folder
                flush(path.parent, os.O_RDONLY)
    except BaseException as error:
        with suppress(OSError):
            size = partial.stat().st_size
        with suppress(OSError):
            partial.unlink()
        if (stop := behind(error, lambda hidden: not isinstance(hidden, Exception))) is not None:
            raise stop from None
        explained = isinstance(error, ValueError) and error.__cause__ is not None  # by whoever wrote
        number = None if explained else system_error(error)
        if number in FULL:
            free = next(shutil.disk_usage(folder).free for folder in path.parents if folder.is_dir())
            raise UnwritableError(
                f"the disk is full: {path} was not written ({memory(size)} of it were; {memory(free)} are free "
                "now). What was there before is whole: make room, or choose another folder"
            ) from error
        if (file := next((p for p in path.parents if p.exists() and not p.is_dir()), None)) is not None:
            message = f"{path} cannot be written: {file} is a file, not a folder; choose another"
            raise UnwritableError(message) from error
        if number == errno.ENOENT and not path.parent.is_dir():
            raise UnwritableError(
                f"{path} cannot be written: its folder was removed, or cannot be made; choose another"
            ) from error
        if number in FORBIDDEN:
            raise UnwritableError(
                f"{path} cannot be written ({os.strerror(number)}). What was there before is whole: make the folder "
                "writable, or choose another"
            ) from error
        raise


@contextmanager
def replacing(path: str | Path, flushed: bool = True) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` as a `replacement` does."""
    with replacement(path, flushed) as partial, open(partial, "wb") as file:
        yield file


def keep(path: Path, name: Path) -> None:
    """Give a file a second name, under which it stays when the first is given to another; not all systems can."""
    try:
        name.unlink(missing_ok=True)
        os.link(path, name)
    except OSError:
        with path.open("rb") as source, replacing(name) as file:
            shutil.copyfileobj(source, file)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(content: object, path: Path, indent: int | None = 2) -> None:
    """Write a JSON file, whole or not at all (see `replacement`)."""
    with replacing(path) as file:
        file.write(json.dumps(content, indent=indent).encode())


def refuse_folders(files: Iterable[Path]) -> None:
    """Raise an UnwritableError, before there is work to lose, if a folder is where one of these files is to be."""
    for file in files:
        if file.is_dir():
            raise UnwritableError(f"{file} is a folder, where a file is to be; choose another folder")


def remove_empty(folder: Path) -> None:
    """Remove a folder, and those that it is in below the working directory, up to the first that holds anything."""
    here = Path.cwd()
    for empty in (folder, *(parent for parent in folder.absolute().parents if parent.is_relative_to(here))):
        if empty == here:
            return
        try:
            empty.rmdir()
        except OSError:
            return


def is_full(error: BaseException) -> bool:
    """Whether an error is, or hides, what the system says of a full disk."""
    return system_error(error) in FULL


def system_error(error: BaseException) -> int | None:
    """The system's number of the error that this one is, or hides."""
    cause = behind(error, lambda hidden: isinstance(hidden, OSError) or OS_ERROR.search(str(hidden)) is not None)
    if isinstance(cause, OSError):
        return cause.errno
    return None if (found := OS_ERROR.search(str(cause))) is None else int(found[1])


def behind(error: BaseException | None, is_meant: Callable[[BaseException], bool]) -> BaseException | None:
    """What torch, when writing ends in an exception of a certain kind, hides behind one of its own."""
    while error is not None and not is_meant(error):
        error = error.__cause__ or error.__context__
    return error


def flush(path: Path, mode: int) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def final_name(path: Path) -> str:
    """The name of a file; of one that was left half-written, the name that it was to have."""
    half = re.fullmatch(r"\.(.+)\.\d+\.partial.*", path.name)
    return path.name if half is None else half[1]


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete what writers that were killed have left in a folder; nobody else may be writing these files.

    Args:
        folder: it need not exist.
        name: a pattern of the names that the files were to have, as `glob` takes it.
    """
    for file in folder.glob(LEFTOVER.format(name=name, pid="*") + "*"):  # storage clients append to names
        file.unlink(missing_ok=True)
        log.info("removed %s, which a process that was killed had left", file)
