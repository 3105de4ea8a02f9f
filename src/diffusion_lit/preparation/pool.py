"""Processes that make shards, and end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from diffusion_lit.preparation.maker import Job, Maker, Record
from diffusion_lit.terminal.interruption import acknowledge

__all__ = ["Pool", "Stopped"]

_maker: Maker | None = None
"""Of a worker process."""


class Stopped(Exception):  # noqa: N818 - not an error
    """The work was asked to stop; what is finished is kept."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; finished shards are kept. Continue with the same command")


@dataclass(eq=False)
class Pool:
    """A context in which `map` makes shards; SIGINT and SIGTERM let those that are being made end.

    With one of `workers`, or where an autoencoder encodes, the work is done in this process.
    """

    maker: Maker
    workers: int

    def __post_init__(self) -> None:
        self.workers = 1 if self.maker.latents else self.workers
        self.received = 0
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Pool":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self.handlers = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:  # asked twice by a person
            raise KeyboardInterrupt
        if not self.received:
            when = "once the shards that are being made are whole"
            threading.Thread(target=acknowledge, args=(number, when), daemon=True).start()
        self.received = number

    def map(self, jobs: list[Job]) -> Iterator[tuple[Job, Record]]:
        """Each job with its record, as they are finished; `Stopped` if a signal came."""
        try:
            for job, record in self.run(jobs):
                yield job, record
                if self.received:
                    raise Stopped(self.received)
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process was killed, most often because memory ran out. Finished shards are kept: run "
                f"the same command and workers={max(1, self.workers // 2)}"
            ) from error

    def run(self, jobs: list[Job]) -> Iterator[tuple[Job, Record]]:
        workers = min(self.workers, len(jobs))  # all of which are started at once
        if workers <= 1:
            yield from ((job, self.maker(job)) for job in jobs)
            return
        with ProcessPoolExecutor(workers, initializer=begin, initargs=(self.maker,)) as executor:
            futures: dict[Future[Record], Job] = {executor.submit(make, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                executor.shutdown(wait=True, cancel_futures=True)


def begin(maker: Maker) -> None:
    """Start a worker process."""
    import torch

    global _maker
    _maker = maker
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the main process decides
    threading.Thread(target=end_with_parent, daemon=True).start()


def make(job: Job) -> Record:
    assert _maker is not None
    return _maker(job)


def end_with_parent() -> None:
    """Otherwise a worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
