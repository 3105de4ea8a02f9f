"""A phase of work, and the line that shows it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["Phase", "StatusLine", "clock_time", "fitting"]

BAR = (6, 32)  # columns, the least and the most
MARGIN = 4  # columns that stay empty at the right: the terminal's ^C must not begin a new line


@dataclass(eq=False)
class Phase:
    """One kind of work, such as training or validation; others may interrupt it.

    Attributes:
        name: shown before the bar.
        total: how much there is to do, in `unit`s; None where nobody knows.
        done: how much of it is done; `initial` of it was already when the phase began.
        began: when, by the progress's clock.
        within: seconds of the phases that interrupted this one.
        figures: shown behind the bar, where the whole has no others.
    """

    name: str
    total: float | None
    unit: str
    began: float
    done: float = 0.0
    initial: float = 0.0
    within: float = 0.0
    figures: Sequence[str] = ()

    def left(self, now: float) -> float | None:
        """Seconds left at the rate so far; None where it is not known."""
        finished = self.done - self.initial
        if self.total is None or finished <= 0:
            return None
        return max(0.0, self.total - self.done) * (now - self.began - self.within) / finished

    @property
    def count(self) -> str:
        if self.total is None:
            return f"{self.done:.0f} {self.unit}" if self.done else ""
        return f"{min(self.done, self.total):.0f}/{self.total:.0f} {self.unit}"


class StatusLine:
    """One line of the width that the terminal has.

    Args:
        state: gives the phase, the time left, and figures, the most important first.
    """

    def __init__(self, state: Callable[[], tuple[Phase, str, Sequence[str]]]) -> None:
        self.state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        phase, left, figures = self.state()
        bar, after = fitting([phase.name, phase.count, left], figures, options.max_width - MARGIN)
        grid = Table.grid(padding=(0, 1, 0, 0))
        done = min(phase.done, phase.total) if phase.total else 0.0
        drawn = [ProgressBar(total=phase.total or 1.0, completed=done, width=bar)] if bar and phase.total else []
        grid.add_row(Text(phase.name, "bold"), *drawn, Text(after, no_wrap=True))
        yield grid


def fitting(fixed: Sequence[str], figures: Sequence[str], width: int) -> tuple[int, str]:
    """What fits into a line: the bar's width, 0 for none, and the text behind it.

    Args:
        fixed: the phase's name, how much is done, the time left: always shown, but for the last ones where even these
            do not fit.
        figures: shown as far as there is room beside the shortest bar, from the first on.
        width: columns.
    """
    name, *texts = fixed
    after = "  ".join(filter(None, texts))
    room = width - len(name) - 2 - BAR[0]
    for figure in figures:
        if len(after) + 2 + len(figure) > room:
            break
        after = f"{after}  {figure}"
    bar = min(width - len(name) - 2 - len(after), BAR[1])
    return (bar, after) if bar >= BAR[0] else (0, after[: max(0, width - len(name) - 2)])


def clock_time(seconds: float) -> str:
    """Such as 0:07, 12:34, 1:02:03 or 3 d 04:05."""
    whole = math.ceil(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24:02d}:{minutes % 60:02d}"
    return f"{hours}:{minutes % 60:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
