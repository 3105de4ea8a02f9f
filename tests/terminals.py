"""A terminal for tests, and what stands on its screen."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.launch import PATIENCE

CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|38;[0-9;]+|9[0-7])[0-9;]*m")


class Terminal:
    """A pseudo-terminal of a width; `end` is the file descriptor that a program writes to."""

    def __init__(self, width: int) -> None:
        self.master, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        self.raw = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        try:
            while piece := os.read(self.master, 65536):
                self.raw += piece
        except OSError:  # nobody writes to it any more
            pass

    def close(self) -> str:
        """Everything that was written."""
        os.close(self.end)
        self.reader.join(PATIENCE)
        os.close(self.master)
        return self.raw.decode()


@contextmanager
def terminal(width: int) -> Iterator[tuple[Terminal, list[str]]]:
    """A terminal, and a list that has everything that was written to it once it is left."""
    opened, written = Terminal(width), []
    try:
        yield opened, written
    finally:
        written.append(opened.close())


def screen(written: str) -> list[str]:
    """The lines that are left on a screen, by the few codes of a line that is drawn again and again."""
    lines = [""]
    for piece in re.split(r"(\x1b\[2K|\x1b\[\d*A|\r\n|\r|\n)", written):
        if piece.endswith("\n"):
            lines.append("")
        elif piece == "\r":  # before a line that is erased
            continue
        elif piece == "\x1b[2K":
            lines[-1] = ""
        elif piece.endswith("A") and piece.startswith("\x1b"):
            raise AssertionError("more than one line is drawn again")
        else:
            lines[-1] += CODE.sub("", piece)
    return lines
