"""The font of text in a picture: one that has its letters."""

import logging
from functools import cache
from pathlib import Path

from PIL import ImageFont

__all__ = ["font_for"]

log = logging.getLogger(__name__)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, or where it lacks a letter, a font of this machine that has them all.

    DejaVu Sans comes with matplotlib, and has Latin letters with all their accents, Greek and Cyrillic; Pillow's own
    font has ASCII alone. Without any such font it is said once, and boxes are drawn.
    """
    return ImageFont.truetype(file_for(frozenset(text)), size)


@cache
def file_for(letters: frozenset[str]) -> str:
    import matplotlib

    usual = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    if has(usual, letters):
        return usual
    from matplotlib.font_manager import fontManager  # which looks for fonts, once on a machine

    def plainness(font: object) -> tuple[bool, bool, str]:
        return (font.style != "normal", font.weight not in (400, "normal", "regular"), font.name)  # type: ignore[attr-defined]

    for font in sorted(fontManager.ttflist, key=plainness):
        if "Last Resort" not in font.name and has(font.fname, letters):  # which has a box for every letter
            return str(font.fname)
    lacking = "".join(sorted(letter for letter in letters if not has(usual, frozenset(letter))))
    log.warning("no font of this machine has all of %s: boxes are drawn. Install one, such as Noto Sans CJK", lacking)
    return usual


@cache
def has(file: str, letters: frozenset[str]) -> bool:
    """Whether the font has them all."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):  # removed since, or of a kind that cannot be read
        return False
    return all(letter.isspace() or font.get_char_index(ord(letter)) for letter in letters)
