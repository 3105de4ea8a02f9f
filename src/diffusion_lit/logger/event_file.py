"""TensorBoard's files of a run that is resumed: every figure once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from diffusion_lit.files import replacing

__all__ = ["continue_events"]

EARLIER = "events.out.tfevents.0000000000.earlier"
"""Sorts before any file of a process, which has the time in its name: TensorBoard reads files in this order."""
SETTINGS = "_hparams_/"


def continue_events(logger: TensorBoardLogger, parent: Path, step: int) -> None:
    """Begin with what the parent had logged up to a step, each figure once, in one file; a cut record is left out.

    A process may have been cut after it logged figures of the very step that it is resumed from, which are then
    computed again. They are the same, and stay those of the parent.

    Args:
        logger: of the resumed run, before anything is logged.
        parent: the folder of the earlier run's event files, which may be the logger's own.
        step: the checkpoint's.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    own = Path(logger.log_dir)
    sources = sorted(parent.glob("*tfevents*"))
    seen: set[tuple[str, int]] = set()
    with replacing(own / EARLIER) as file:
        writer = RecordWriter(file)
        for event in (event for source in sources for event in events_of(source)):
            if event.WhichOneof("what") == "summary":
                values = [v for v in event.summary.value if is_kept(v.tag, event.step, step, seen)]
                if values:
                    kept = Event(wall_time=event.wall_time, step=event.step)
                    kept.summary.value.extend(values)
                    writer.write(kept.SerializeToString())
    for source in sources:
        if parent.resolve() == own.resolve() and source.name != EARLIER:
            source.unlink()
    log_once(logger, {(tag, at) for tag, at in seen if at in (0, step)})


def events_of(file: Path) -> Iterator[Any]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    yield from map(Event.FromString, RawEventFileLoader(str(file)).Load())


def is_kept(tag: str, at: int, last: int, seen: set[tuple[str, int]]) -> bool:
    """Whether a figure of the step `at` is of the run up to `last`, and not yet `seen`, to which it is then added.

    Settings are written anew by each process.
    """
    if at > last or (tag, at) in seen or tag.startswith(SETTINGS):
        return False
    seen.add((tag, at))
    return True


def log_once(logger: TensorBoardLogger, known: set[tuple[str, int]]) -> None:
    """Let the logger leave out figures and pictures that its files have already, by name and step."""
    writer = logger.experiment._get_file_writer()
    add_summary = writer.add_summary

    def add_new(summary: Any, global_step: int | None = None, walltime: float | None = None) -> None:
        if not all((value.tag, int(global_step or 0)) in known for value in summary.value):
            add_summary(summary, global_step, walltime)

    writer.add_summary = add_new
