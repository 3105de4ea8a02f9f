"""Images in a folder, as people have them."""

import os
from collections.abc import Iterator
from pathlib import Path

from diffusion_lit.source.base import FileSource
from diffusion_lit.source.file_kind import is_hidden

__all__ = ["FolderSource", "stamp_of", "walk"]


class FolderSource(FileSource):
    """The images below a folder; linked folders count."""

    def __init__(self, root: Path, val_fraction: float) -> None:
        self.root = root
        self.description = str(root)
        self.arrange(dict(self.stamps()), val_fraction)

    def stamps(self) -> Iterator[tuple[str, str]]:
        for path in walk(self.root):
            name = path.relative_to(self.root).as_posix()
            yield name, stamp_of(path)

    def open(self, name: str, max_bytes: int) -> Path:
        path = self.root / name
        if path.exists() and not path.is_file():  # to open a pipe is to wait for ever
            raise ValueError(f"{path} is not an ordinary file")
        return path


def stamp_of(path: Path) -> str:
    """What changes when a file's content does, as far as that can be seen without reading it."""
    try:
        status = os.stat(path)
    except OSError as error:  # a link to nothing, of which reading says so too
        return str(error)
    return f"{status.st_size} {status.st_mtime_ns}"


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, also in linked folders, each of which is entered once.

    Raises:
        ValueError: if a folder in it, which is not hidden, cannot be listed: its images would be missing unnoticed.
    """

    def refuse(error: OSError) -> None:
        unlisted = Path(error.filename or folder)  # reading on in a folder names none
        if not is_hidden(unlisted.relative_to(folder)):
            raise ValueError(
                f"the folder {unlisted} cannot be listed ({error.strerror}): give yourself the right to read it, "
                "or move it elsewhere"
            ) from error

    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(parent)) in entered:
            folders.clear()  # a link that leads back up would go round for ever
            continue
        entered.add(real)
        yield from (Path(parent, file) for file in files)
