"""The folder that a set is prepared in."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from diffusion_lit.files import final_name, remove_leftovers, replacing
from diffusion_lit.preparation.maker import Job, Record
from diffusion_lit.prepared.manifest import MANIFEST, SHARD, WORK, Manifest
from diffusion_lit.source.layout import SPLITS

__all__ = ["REPORT", "Workspace"]

REPORT = "unreadable.txt"
OURS = re.compile(rf"index\.json|{SHARD}")
"""What there is in a split's folder."""
WRITTEN = {"": (MANIFEST, REPORT), WORK: ("plan", "*.json"), **dict.fromkeys(SPLITS, ("index.json", "shard-*.bin"))}
"""What only the process writes that has the folder, below it."""


@dataclass(eq=False)
class Workspace:
    """The folder `out` of a prepared set, and in it what is known of finished shards until all are."""

    out: Path

    def __post_init__(self) -> None:
        self.work = self.out / WORK
        self.plan = self.work / "plan"
        """The file that says whose the folder is."""

    def make(self) -> None:
        """Make the folder, if it is not there yet; a ValueError if there is something else in it."""
        if not self.plan.is_file():
            self.refuse_foreign()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{self.out} cannot be written to ({error}); choose another out=") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder; a ValueError if one has it."""
        lock = FileLock(self.work / "lock")
        while not lock.is_locked:
            self.make()
            try:
                lock.acquire(timeout=10)  # workers of a killed process let go after a moment
            except FileNotFoundError:  # the other process has finished, and removed the folder
                continue
            except Timeout as error:
                raise ValueError(f"another process is preparing into {self.out}; wait, or set another out=") from error
        try:
            yield
        finally:
            lock.release()

    def claim(self, plan: str, overwrite: bool) -> None:
        """Make the folder over to a plan, by its hash; `overwrite` removes the set of another, else it is refused."""
        for folder, names in WRITTEN.items():
            for name in names:
                remove_leftovers(self.out / folder, name)
        if self.plan.is_file() and self.plan.read_text() == plan and not (self.out / MANIFEST).is_file():
            return
        self.refuse_foreign()
        if self.plan.is_file() or self.is_prepared():
            if not overwrite:
                raise self.other_set()
            self.write(self.plan, "")  # still ours if this ends half-way
        for path in [*(path for path in self.out.iterdir() if path != self.work), *self.work.glob("*.json")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.write(self.plan, plan)

    def made_before(self, plan: str) -> Manifest | None:
        """The finished set, if there is one; that of another plan is refused."""
        if not self.is_prepared():
            return None
        manifest = Manifest.load(self.out / MANIFEST)
        if manifest.plan != plan:
            raise self.other_set()
        return manifest

    def is_prepared(self) -> bool:
        """Whether there is a finished set, and not another program's file of the same name."""
        path = self.out / MANIFEST
        return path.is_file() and '"content_hash"' in path.read_text(errors="replace")

    def refuse_foreign(self) -> None:
        """Refuse a folder that has something in it that was not prepared."""
        ours = self.plan.is_file() or self.is_prepared()
        for path in self.out.iterdir() if self.out.is_dir() else ():
            if ours and path.is_dir() and path.name in SPLITS:
                foreign = [inner for inner in path.iterdir() if not OURS.fullmatch(final_name(inner))]
            else:
                known = path == self.work or (ours and final_name(path) in (MANIFEST, REPORT))
                foreign = [] if known else [path]
            if foreign:
                what = "has more in it than a prepared set" if ours else "is not a prepared set, but not empty either"
                raise ValueError(f"{self.out} {what} (it has {foreign[0].relative_to(self.out)}): choose another out=")

    def other_set(self) -> ValueError:
        return ValueError(
            f"{self.out} was prepared from other images or with other settings: choose another out=, or replace it "
            "with overwrite=true"
        )

    def finished(self, job: Job) -> Record | None:
        """The record of a shard that is there and complete."""
        try:
            record = Record.load(self.work / f"{job.name}.json")
        except (FileNotFoundError, ValueError):  # not made yet, or cut short by a loss of power
            return None
        shard = self.out / job.file
        complete = record.count == 0 or (shard.is_file() and shard.stat().st_size == record.bytes)
        return record if complete else None

    def finish(self, job: Job, record: Record) -> None:
        """Note that a shard is finished."""
        record.save(self.work / f"{job.name}.json")

    def report(self, unreadable: list[tuple[str, str]]) -> None:
        """List the images that are left out, with reasons, if there are any."""
        if unreadable:
            text = "".join(f"{name}\t{reason}\n" for name, reason in unreadable)
            self.write(self.out / REPORT, text)

    @staticmethod
    def write(path: Path, text: str) -> None:
        with replacing(path) as file:
            file.write(text.encode(errors="surrogateescape"))

    def leave(self) -> None:
        """Remove what was put into the folder of somebody's finished set, unless another process is at work there."""
        if self.is_prepared() and self.work.is_dir():
            with suppress(Timeout, FileNotFoundError), FileLock(self.work / "lock", timeout=0):
                self.close()

    def close(self) -> None:
        """Remove what is of no use once the set is finished."""
        shutil.rmtree(self.work, ignore_errors=True)
