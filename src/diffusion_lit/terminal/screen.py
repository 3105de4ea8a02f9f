"""What is said on the terminal: messages that stand above a bar of progress, tables, and whether there is a bar."""

import logging
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

__all__ = ["MODES", "LogHandler", "StatusConsole", "choose_progress", "progress_mode", "say", "table"]

MODES = ("auto", "bar", "plain", "none")
WIDTH = 80
"""Columns of a table; fewer on a narrower terminal."""
COLOURS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class StatusConsole(Console):
    """Where progress is shown: the error stream, so that what a command prints can be piped into another.

    It never hides the cursor, which would stay hidden where the process is killed.
    """

    def __init__(self, terminal: bool | None = None) -> None:
        super().__init__(stderr=True, force_terminal=is_terminal(sys.stderr) if terminal is None else terminal)

    def show_cursor(self, show: bool = True) -> bool:
        return False


class Screen:
    """What this process has on the terminal.

    Attributes:
        mode: how progress is shown, one of `MODES`.
        live: the console of the bar that is on the screen, if there is one.
    """

    mode: str = "auto"
    live: StatusConsole | None = None


SCREEN = Screen()


def choose_progress(mode: object) -> None:
    """Choose how this process shows progress; None is `none`.

    Raises:
        ValueError: if there is no such mode.
    """
    if mode is not None and mode not in MODES:
        raise ValueError(
            f"progress must be one of {', '.join(MODES)}, got {mode}: auto is a bar on a terminal, and a line every so "
            "often elsewhere"
        )
    SCREEN.mode = "none" if mode is None else str(mode)


def progress_mode() -> str:
    """How progress is shown now: `bar`, `plain` or `none`."""
    if SCREEN.mode != "auto":
        return SCREEN.mode
    console = StatusConsole()
    return "bar" if console.is_terminal and not console.is_dumb_terminal else "plain"


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def say(text: str, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Write a message, above the bar if there is one; its lines are never broken, so that they can be copied.

    Args:
        text: the message.
        level: warnings and errors have a colour, where the terminal has colours and `NO_COLOR` is not set.
        stream: where it goes; None is the standard output.
    """
    stream = stream or sys.stdout
    if not is_terminal(stream):
        print(text, file=stream, flush=True)
        return
    console = SCREEN.live or Console(file=stream, force_terminal=True)
    console.print(Text(text, COLOURS.get(level, "")), soft_wrap=True)


class LogHandler(logging.Handler):
    """Shows log records as plain messages; what is not mere information begins with its level."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            prefix = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
            say(prefix + text, record.levelno)
        except Exception:
            self.handleError(record)


def table(rows: Sequence[tuple[str, str | Path | None]], width: int | None = None) -> str:
    """Lines `name  value`, aligned; long values continue below their beginning, but for paths, which stay whole.

    Args:
        rows: names and values; those whose value is None are left out.
        width: columns; None is the terminal's, up to 80.
    """
    shown = [(name, value) for name, value in rows if value is not None]
    width = width or min(Console().width, WIDTH)
    indent = max(len(name) for name, _ in shown) + 4
    lines = []
    for name, value in shown:
        parts = [str(value)] if isinstance(value, Path) else wrapped(value, max(width - indent, 20))
        lines += [f"  {'' if i else name:{indent - 2}}{part}" for i, part in enumerate(parts)]
    return "\n".join(lines)


def wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
