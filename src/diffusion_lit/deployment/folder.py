"""A folder that is made whole, or is not there."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusion_lit.files import FORBIDDEN, FULL, LEFTOVER, UnwritableError, flush, system_error, write_json
from diffusion_lit.trust.plain import read_json

__all__ = ["RECORD", "check_place", "made_whole"]

RECORD = "diffusion_lit.json"
"""In every exported folder: what was exported, and the names of its files."""


def check_place(out: Path, overwrite: bool) -> None:
    """See that a folder may be made in this place.

    Raises:
        UnwritableError: if a file is there.
        ValueError: if a folder is there that is not empty, unless it is an export and may be replaced; or the one that
            this process is in.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        raise ValueError(
            f"{out} is the folder that this command was started in, or has it inside, and an export takes a folder's "
            "place: choose another out=, such as out=model"
        )
    if out.exists() and not out.is_dir():
        raise UnwritableError(f"{out} is a file, where a folder is to be; choose another out=")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    if not there:
        return
    if foreign := sorted(there - exported_names(out)):
        raise ValueError(f"{out} has something in it that was not exported ({foreign[0]}): choose another out=")
    if not overwrite:
        raise ValueError(f"{out} has an export in it: choose another out=, or replace it with overwrite=true")


def exported_names(out: Path) -> set[str]:
    """What an export has made in a folder, and in the folders within."""
    if not (out / RECORD).is_file():
        return set()
    record = read_json(out / RECORD)
    names = record.get("files") if isinstance(record, dict) else None
    files = [Path(str(name)) for name in names] if isinstance(names, list) else []
    return {RECORD, *(path.as_posix() for file in files for path in (file, *file.parents))} if files else set()


@contextmanager
def made_whole(out: Path, record: dict[str, object]) -> Iterator[Path]:
    """A folder to write to, which takes the place of `out` once it is complete, with a record of its files in it.

    It lies beside its place. A process that is killed leaves it, out of sight, and the next export removes it; and what
    was there before, once there is a whole one again.

    Raises:
        UnwritableError: if the disk is full or read-only.
    """
    own = LEFTOVER.format(name=out.name, pid=os.getpid())
    any_one = LEFTOVER.format(name=glob.escape(out.name), pid="*")
    work, former = out.with_name(own), out.with_name(f"{own}.former")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(any_one):
            shutil.rmtree(left, ignore_errors=True)
        work.mkdir()
        yield work
        names = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
        write_json({**record, "files": names}, work / RECORD)
        for name in names:
            flush(work / name, os.O_RDWR)
        if out.is_dir():
            out.rename(former)
        work.rename(out)
        for left in out.parent.glob(f"{any_one}.former"):
            shutil.rmtree(left, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if former.is_dir() and not out.exists():
            with suppress(OSError):
                former.rename(out)
        if system_error(error) in (*FULL, *FORBIDDEN) and not isinstance(error, UnwritableError):
            raise UnwritableError(
                f"{out} cannot be written ({error}). What was there before is whole: make room, or choose another out="
            ) from error
        raise
