"""The folder of a `sample`: its images as they are drawn, and the settings that they are drawn with."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor

from diffusion_lit.files import UnwritableError, remove_leftovers, write_json
from diffusion_lit.picture.image import read_image, save_image
from diffusion_lit.trust.plain import read_json

__all__ = ["ImageFiles", "SampleFolder"]

RECORD = "sample.json"
FINISHED = "finished"
"""In it, what was made of images that are not kept themselves."""


class SampleFolder:
    """Each image is a file, written when it is drawn: whatever ends the command, they stay, and are not drawn again.

    Args:
        out: the folder.
        kind: `png` or `npy`, what the files are.
        keep: whether the images are to be found there as they are; otherwise they are out of sight in between.
    """

    def __init__(self, out: Path, keep: bool, kind: str = "png") -> None:
        self.out, self.kind, self.shown, self.hidden = out, kind, out / kind, out / ".drawn"
        self.images = self.shown if keep or self.shown.is_dir() else self.hidden
        self.lock = FileLock(out / ".lock")

    def file(self, index: int) -> Path:
        return self.images / f"{index:06d}.{self.kind}"

    def open(self, settings: dict[str, Any], indices: Sequence[int], product: Mapping[str, Any]) -> list[int]:
        """Make the folder, or find it as an earlier command with the same settings has left it, and lock it.

        Args:
            settings: all that decides what an image is, plain values.
            indices: the images that are to be in it.
            product: what is to be made of them there, plain values: its `files`, and all else that decides it.

        Returns:
            Those that are missing, or not whole; none if the product is there (`is_finished`).

        Raises:
            ValueError: if it cannot be written to, another command has it, or it holds images of other settings, or
                something of these names that no such command has made.
        """
        record = self.out / RECORD
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
            self.locked = os.stat(self.lock.lock_file)
        except Timeout as error:
            raise ValueError(
                f"another command is drawing into {self.out}: wait for it, or give another folder, out=DIR"
            ) from error
        except OSError:
            pass  # writing below says what is wrong
        made, finished = product["files"], None
        if record.is_file():
            recorded = read_json(record)
            finished = recorded.pop(FINISHED, None) if isinstance(recorded, dict) else None
            check_settings(recorded, settings, self.out)
        elif taken := [name for name in (self.shown.name, self.hidden.name, *made) if is_taken(self.out / name)]:
            names = ", ".join(taken)
            raise ValueError(
                f"{self.out} has {names} in it, and no {RECORD} says how it was drawn: give another out=DIR"
            )
        there = all((self.out / name).exists() for name in made)
        self.is_finished = self.images == self.hidden and finished == product and there
        self.record = {**settings, FINISHED: dict(product)}
        write_json(self.record if self.is_finished else settings, record)
        if self.is_finished:
            shutil.rmtree(self.hidden, ignore_errors=True)
            return []
        if self.images == self.shown and self.hidden.is_dir() and not self.shown.exists():
            self.hidden.rename(self.shown)
        try:
            self.images.mkdir(exist_ok=True)
        except OSError as error:
            raise UnwritableError(f"{self.images} cannot be written to ({error}); choose another folder") from error
        for folder in (self.out, self.images):
            remove_leftovers(folder)
        found = {path.name for path in self.images.iterdir()}
        return [i for i in indices if (file := self.file(i)).name not in found or not is_whole(file)]

    def save(self, index: int, image: Tensor) -> None:
        """Write one image, uint8 [C, H, W]; an UnwritableError if the folder, with the earlier ones, is gone."""
        if not (self.out / RECORD).is_file():
            raise UnwritableError(
                f"{self.out} was removed or moved while images were drawn into it: remove what may be left of it, or "
                "choose another folder"
            )
        save_image(image, self.file(index), flushed=False)

    def release(self) -> None:
        """Let other commands have the folder, and leave no file of the lock in it.

        If the folder was removed and made again, its lock is another command's, and stays.
        """
        if self.lock.is_locked:
            path = Path(self.lock.lock_file)
            with suppress(OSError):  # Windows removes it by itself, once it is released
                if os.path.samestat(self.locked, path.stat()):
                    path.unlink()
            self.lock.release()

    def close(self) -> None:
        """Remove images that were only kept until something was made of them."""
        if self.images == self.hidden:
            write_json(self.record, self.out / RECORD)
            shutil.rmtree(self.hidden)


@dataclass(frozen=True)
class ImageFiles:
    """Images of a folder in the order of `indices`, each read when it is asked for."""

    folder: SampleFolder
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Tensor]:
        return (read_image(self.folder.file(i)) for i in self.indices)

    def __contains__(self, image: object) -> bool:
        return any(image is other for other in self)


def check_settings(recorded: Any, settings: dict[str, Any], out: Path) -> None:
    """Raise a ValueError, with all differences, unless images in `out` were drawn with the same settings."""
    recorded = recorded if isinstance(recorded, dict) else {}
    keys = sorted(recorded.keys() | settings.keys())
    if different := [key for key in keys if recorded.get(key) != settings.get(key)]:
        listed = "".join(f"\n  {key}: {recorded.get(key)} there, {settings.get(key)} now" for key in different)
        raise ValueError(
            f"{out} holds images that were drawn with other settings:{listed}\nGive another folder, out=DIR, or the "
            "same settings to continue"
        )


def is_taken(place: Path) -> bool:
    """Whether there is a file, or a folder with anything in it."""
    return any(place.iterdir()) if place.is_dir() else place.exists()


def is_whole(file: Path) -> bool:
    """Whether all of a PNG is there, by its checksums, or of an array, by its size."""
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False).ndim == 3
        with Image.open(file) as image:
            image.verify()
    except MemoryError:
        raise
    except Exception:  # what is damaged raises anything
        return False
    return True
