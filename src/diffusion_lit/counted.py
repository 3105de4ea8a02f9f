"""Numbers of things and of bytes, in words."""

from collections.abc import Sequence

__all__ = ["agreeing", "counted", "memory"]


def agreeing(names: Sequence[str], one: str, several: str) -> str:
    """`a has`, `a, b have`: names and the verb that goes with so many."""
    return f"{', '.join(names)} {one if len(names) == 1 else several}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `1,200 images`; `plural` is that of a noun that takes more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def memory(count: float) -> str:
    """So many bytes, such as 17 MiB or 1.2 GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.{1 if count < 2**24 else 0}f} MiB"
