"""The font of text in a picture: one that has its letters."""

import logging
from functools import cache
from pathlib import Path

from PIL import ImageFont

__all__ = ["font_file", "font_for", "one_line"]

log = logging.getLogger(__name__)

BOXES: list[str] = []
"""Texts that no font of this machine can write: the first of them is warned of."""


def one_line(name: str) -> str:
    """The name of a class, which as a folder's may have any bytes, as a line of text."""
    return " ".join(name.encode(errors="backslashreplace").decode().split())


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font of `font_file`, for Pillow."""
    return load(font_file(text), size)


def font_file(text: str) -> str:
    """DejaVu Sans, or where it lacks a letter, a font of this machine that has them all.

    DejaVu Sans comes with matplotlib, and has Latin letters with all their accents, Greek and Cyrillic; Pillow's own
    font has ASCII alone. Where no font has them, boxes are drawn, with a warning for the first such text.
    """
    return file_for(frozenset("".join(text.split())))


@cache
def load(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@cache
def file_for(letters: frozenset[str]) -> str:
    import matplotlib

    usual = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    if letters <= letters_of(usual):
        return usual
    if (other := next((file for file in others() if letters <= letters_of(file)), None)) is not None:
        return other
    BOXES.append("".join(sorted(letters - letters_of(usual))))
    if len(BOXES) == 1:
        text = BOXES[0]
        log.warning("no font of this machine has all of %s: boxes are drawn. Install one, such as Noto Sans CJK", text)
    return usual


@cache
def others() -> list[str]:
    """The fonts of this machine, the plainest first; without those that have a box for every letter."""
    from matplotlib.font_manager import fontManager  # which looks for fonts, once on a machine

    fonts = [font for font in fontManager.ttflist if "Last Resort" not in font.name]
    fonts.sort(key=lambda font: (font.style != "normal", font.weight not in (400, "normal", "regular"), font.name))
    return [font.fname for font in fonts]


@cache
def letters_of(file: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):  # removed since, or of a kind that cannot be read
        return frozenset()
