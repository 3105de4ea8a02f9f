"""Files that are whole, or not there."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["DiskFullError", "remove_leftovers", "replacing"]

LEFTOVER = ".{name}.{pid}.partial"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(ValueError):
    """A file could not be written for want of space; its predecessor is untouched."""


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` once it is complete and on the disk.

    It is written beside its place, on the same file system, flushed to the disk and renamed: whenever the process or
    the machine ends, `path` is the old file or the new one, whole.

    Raises:
        DiskFullError: if the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(LEFTOVER.format(name=path.name, pid=os.getpid()))
    try:
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
        if is_full(error):
            free = shutil.disk_usage(path.parent).free / 2**30
            raise DiskFullError(
                f"the disk is full: {path} was not written ({size / 2**30:.2f} GiB of it were; {free:.2f} GiB are free "
                "now). What was saved before is whole: make room, and continue with resume=auto"
            ) from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind `error`; torch wraps the system's error into its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def flush_folder(folder: Path) -> None:
    """Make a renaming last. Not all systems can open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete what writers that were killed have left in `folder`, and say which files these were."""
    found = sorted(folder.glob(LEFTOVER.format(name="*", pid="*")))
    for file in found:
        file.unlink(missing_ok=True)
    return found
