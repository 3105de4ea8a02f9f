"""Standard output and the error stream, whose readers may leave before the work is done."""

import io
import sys

__all__ = ["outlive_readers"]


class Outlet(io.FileIO):
    """A stream that takes what is written after its reader has gone, and drops it."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def outlive_readers() -> None:
    """Let a command do its work, and end with its own exit code, whether or not what it prints is read to the end.

    `| head` takes its lines and leaves: what is printed after that goes nowhere, where Python would stop the work with
    a traceback.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # and not what a test or a notebook has in its place
            stream.flush()
            outlet = io.BufferedWriter(Outlet(stream.fileno(), "w", closefd=False))
            buffering = (stream.line_buffering, stream.write_through)
            # The names of files need not be text.
            errors = "surrogateescape" if stream.errors == "strict" else stream.errors
            setattr(sys, name, io.TextIOWrapper(outlet, stream.encoding, errors, None, *buffering))
