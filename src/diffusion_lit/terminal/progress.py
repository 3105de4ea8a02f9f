"""How far a piece of work is: a bar on a terminal, a line every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.live import Live

from diffusion_lit.distributed.ranks import is_first
from diffusion_lit.terminal.screen import SCREEN, StatusConsole, is_terminal, progress_mode, say
from diffusion_lit.terminal.status_line import Phase, StatusLine, clock_time

__all__ = ["Progress", "Work", "activated", "progress"]

REFRESH_SECONDS, PLAIN_SECONDS = 0.5, 30.0


class Progress:
    """Phases of work, of which the innermost is shown in one line; those of several processes by the first alone.

    Args:
        name, total, unit, done: of the outermost phase.
        refresh_seconds: the time between two updates of the bar.
        plain_seconds: the time between two lines where there is no terminal.
        delay: seconds before the first is shown.
        clock: the time in seconds.
    """

    def __init__(
        self,
        name: str,
        total: float | None,
        unit: str,
        done: float = 0.0,
        refresh_seconds: float = REFRESH_SECONDS,
        plain_seconds: float = PLAIN_SECONDS,
        delay: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.refresh_seconds, self.plain_seconds = clock, refresh_seconds, plain_seconds
        self.phases = [Phase(name, total, unit, clock(), done, done)]
        self.seconds: dict[str, float] = {}
        """Of the newest phase of each name that has ended, without those that interrupted it."""
        self.describe: Callable[[], tuple[str | None, Sequence[str]]] = lambda: (None, ())
        """Asked when the line is shown anew: the time left of everything, or None to show the phase's; and figures, the
        most important first, which are shown as far as there is room."""
        self.described: tuple[str | None, Sequence[str]] = (None, ())
        self.mode = progress_mode() if is_first() else "none"
        self.live: Live | None = None
        self.shown = clock() + delay - (refresh_seconds if self.mode == "bar" else 0)
        """When it was shown last."""

    @property
    def phase(self) -> Phase:
        return self.phases[-1]

    def enter(self, name: str, total: float | None, unit: str, done: float = 0.0) -> Phase:
        """Begin a phase, which interrupts the one before."""
        self.phases.append(Phase(name, total, unit, self.clock(), done, done))
        self.show(at_once=self.live is not None)
        return self.phase

    def leave(self) -> None:
        """End the innermost phase."""
        phase, now = self.phases.pop(), self.clock()
        self.seconds[phase.name] = now - phase.began - phase.within
        self.phase.within += now - phase.began
        self.show(at_once=self.live is not None)

    def state(self) -> tuple[Phase, str, Sequence[str]]:
        """The phase, the time left and the figures that are shown."""
        left, figures = self.described
        if left is None and (seconds := self.phase.left(self.clock())):  # none at the end
            left = f"{clock_time(seconds)} left"
        return self.phase, left or "", figures or self.phase.figures

    def show(self, at_once: bool = False) -> None:
        """Show the newest state, if the last time was long enough ago."""
        now = self.clock()
        every = self.refresh_seconds if self.mode == "bar" else self.plain_seconds
        if self.mode == "none" or (not at_once and now - self.shown < every):
            return
        self.shown = now
        self.described = self.describe()
        if self.mode == "plain":
            phase, left, figures = self.state()
            parts = [f"{phase.name} {phase.count}".strip(), left, *figures]
            say(f"{time.strftime('%H:%M:%S')} {', '.join(filter(None, parts))}", stream=sys.stderr)
            return
        if self.live is None:
            console = SCREEN.live = StatusConsole(terminal=True)
            redirected = is_terminal(sys.stdout)
            self.live = Live(StatusLine(self.state), console=console, auto_refresh=False, redirect_stdout=redirected)
            self.live.start()
        self.live.refresh()

    def close(self) -> None:
        """Show the last state, which stays."""
        del self.phases[1:]
        if self.live is not None:
            self.show(at_once=True)
            live, self.live = self.live, None
            live.stop()
            SCREEN.live = None
        elif self.mode == "plain" and self.clock() - self.phase.began >= self.plain_seconds:
            self.show(at_once=True)


ACTIVE: list[Progress] = []
"""The progress of this process's work, if any is shown."""


@contextmanager
def activated(outermost: Progress) -> Iterator[Progress]:
    """Let `progress` count in phases of this one; closed on leaving."""
    ACTIVE.append(outermost)
    try:
        yield outermost
    finally:
        with suppress(ValueError):
            ACTIVE.remove(outermost)
        outermost.close()


@dataclass
class Work:
    """A phase that is at work."""

    progress: Progress
    phase: Phase

    def expect(self, total: float) -> None:
        """Say how much there is to do."""
        self.phase.total = total
        if total > 0:
            self.progress.show()

    def advance(self, count: float) -> None:
        """Count more as done."""
        self.reach(self.phase.done + count)

    def reach(self, done: float) -> None:
        """Count so much as done; more than there is counts as all."""
        self.phase.done = done if self.phase.total is None else min(done, self.phase.total)
        self.progress.show()


@contextmanager
def progress(name: str, total: float | None, unit: str = "", done: float = 0.0, delay: float = 0.0) -> Iterator[Work]:
    """Show a piece of work, as a phase of what is being shown or by itself.

    Args:
        name: what is being done, such as `FID`.
        total: how much there is to do; None where that is not known, or not yet.
        unit: of what, such as `images`.
        done: how much of it is done before.
        delay: seconds before it is shown by itself.
    """
    if not ACTIVE:
        with activated(Progress(name, total, unit, done, delay=delay)) as alone:
            work = Work(alone, alone.phase)
            if total is not None:
                work.expect(total)
            yield work
        return
    outer = ACTIVE[-1]
    phase = outer.enter(name, total, unit, done)
    try:
        yield Work(outer, phase)
    finally:
        if phase in outer.phases:  # and the whole was not closed meanwhile
            outer.leave()
