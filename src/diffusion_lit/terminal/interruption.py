"""Being asked to stop: the signals of terminals, schedulers and machines that are shut down."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from diffusion_lit.command_line.shell import command_line
from diffusion_lit.distributed.ranks import is_first
from diffusion_lit.terminal.screen import say

__all__ = ["CommandInterrupted", "Interrupted", "Interruption", "acknowledge"]

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
"""Control-C; what schedulers send; the terminal is gone; what SLURM can be asked to send before its time limit."""
SIGCHLD: int | None = getattr(signal, "SIGCHLD", None)  # Windows has none
PATIENCE = 1.0  # seconds after the first signal from which on a second one ends the process at once
AGAIN = 0.05  # seconds after which a signal that came at a bad moment is sent again
START_PATIENCE = 5.0  # seconds after a signal in which a process that has not started to train must have ended


class Interrupted(BaseException):
    """A run was asked to stop: not an error, and not for code to catch that catches any `Exception`.

    Args:
        number: number of the signal; the process exits with 128 + it.
        saved: the run's folder, where there is something to continue from.
    """

    def __init__(self, number: int, saved: Path | None = None) -> None:
        self.exit_code = 128 + number
        self.number = number
        self.saved = saved
        super().__init__(number)

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        if self.saved is None:
            return f"stopped by {name}, before there was anything to save"
        return (
            f"stopped by {name}; everything is saved. Continue with\n  {command_line('train', {'resume': self.saved})}"
        )


class CommandInterrupted(Interrupted):
    """A command was asked to stop: `kept` says what stays of it, and `again` is the command that continues it."""

    def __init__(self, number: int, kept: str, again: str) -> None:
        super().__init__(number)
        self.kept, self.again = kept, again

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; {self.kept}. Continue with\n  {self.again}"


class Interruption:
    """Takes the signals while it is entered, and gives them back afterwards.

    A signal raises `Interrupted` where the process is, unless it is `held`. A second one, a second later or more, ends
    the process on the spot, even if the first was never seen because the process hangs outside of Python; and so does
    the first, after a while, as long as training has not started.
    """

    def __init__(self) -> None:
        self.number = 0
        """Of the first signal that came; 0 before."""
        self.held = False
        """Whether a signal only sets `number`, until it is released."""
        self.started = False
        """Whether training has started, and with it whoever asks for `number`."""
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self.process = os.getpid()
            self.handlers = {number: signal.signal(number, self.receive) for number in SIGNALS}
            self.ends = socket.socketpair()
            self.ends[1].setblocking(False)
            self.earlier = signal.set_wakeup_fd(self.ends[1].fileno(), warn_on_full_buffer=False)
            self.watcher = threading.Thread(target=self.watch, args=(self.ends[0],), daemon=True)
            self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.handlers:
            signal.set_wakeup_fd(self.earlier)
            self.ends[1].close()
            self.watcher.join(PATIENCE)  # that a signal was heard is said before what came of it, and not cut off
        self.handlers = {}

    def release(self) -> None:
        """Hold signals no longer.

        Raises:
            Interrupted: if one came meanwhile.
        """
        self.held = False
        if self.number:
            raise Interrupted(self.number)

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if self.held or os.getpid() != self.process:  # but one of its loading processes
            return
        if frame is not None and frame.f_globals.get("__name__") == "logging":
            # It takes and releases its locks around each fork, where Python drops what is raised and prints it.
            threading.Timer(AGAIN, os.kill, (self.process, number)).start()
            return
        raise Interrupted(self.number)

    def watch(self, end: socket.socket) -> None:
        """From a thread to which the system itself sends the numbers of signals: see that the process ends."""
        first = None
        with end:
            while numbers := end.recv(16):
                asked = [number for number in numbers if number in SIGNALS]
                if asked and first is not None and time.monotonic() - first > PATIENCE:
                    os._exit(128 + asked[0])
                if asked and first is None:
                    first = time.monotonic()
                    acknowledge(asked[0], "after this step, and saving" if self.held else "")
                    threading.Thread(target=self.give_up, args=(asked[0],), daemon=True).start()

    def give_up(self, number: int) -> None:
        time.sleep(START_PATIENCE)
        if self.handlers and not self.started:
            os._exit(128 + number)


def acknowledge(number: int, when: str) -> None:
    """Say at once that a signal was heard, however long it takes until it is answered.

    Not from a signal's handler, which may run in the middle of a message.
    """
    with suppress(OSError, ValueError):  # the terminal is gone
        if is_first():
            stopping = f"stopping {when}".rstrip()
            say(f"\n{signal.Signals(number).name}: {stopping}; a second one stops at once", stream=sys.stderr)
