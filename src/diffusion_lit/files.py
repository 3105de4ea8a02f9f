"""Files that are whole, or not there."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from diffusion_lit.interruption import Interrupted

__all__ = ["UnwritableError", "remove_leftovers", "replacing", "write_json"]

log = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)
LEFTOVER = ".{name}.{pid}.partial"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR)


class UnwritableError(ValueError):
    """A file could not be written: the disk is full or read-only, or something is in the way."""


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` once it is complete and on the disk.

    It is written beside its place, on the same file system, flushed to the disk and renamed: whenever the process or
    the machine ends, `path` is the old file or the new one, whole.

    Raises:
        UnwritableError: if the disk is full or read-only, or the place is taken by a folder.
    """
    path, size = Path(path), 0
    partial = path.with_name(LEFTOVER.format(name=path.name, pid=os.getpid()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            size = partial.stat().st_size
        with suppress(OSError):
            partial.unlink()
        if (stop := behind(error, Interrupted)) is not None:
            raise stop from None
        cause = behind(error, OSError)
        if cause is not None and cause.errno in FULL:
            free = next(shutil.disk_usage(folder).free for folder in path.parents if folder.is_dir()) / 2**30
            raise UnwritableError(
                f"the disk is full: {path} was not written ({size / 2**30:.2f} GiB of it were; {free:.2f} GiB are free "
                "now). What was saved before is whole: make room, and continue with resume=auto"
            ) from error
        if cause is not None and cause.errno in FORBIDDEN:
            raise UnwritableError(
                f"{path} cannot be written ({cause.strerror}). What was saved before is whole: make the folder "
                "writable, or choose another hydra.run.dir, and continue with resume=auto"
            ) from error
        raise


def write_json(content: object, path: Path) -> None:
    """Write a JSON file, whole or not at all (see `replacing`)."""
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def behind(error: BaseException | None, kind: type[E]) -> E | None:
    """What torch, when writing ends in an exception of this kind, hides behind one of its own."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def flush_folder(folder: Path) -> None:
    """Make a renaming last. Not all systems can open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(run: Path) -> None:
    """Delete what writers that were killed have left in a run's folder, which nobody else may be writing to."""
    for folder in (run, run / "checkpoints", run / "samples"):
        for file in folder.glob(LEFTOVER.format(name="*", pid="*")):
            file.unlink(missing_ok=True)
            log.info("removed %s, which a process that was killed had left", file)
