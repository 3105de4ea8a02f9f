"""Pictures for a page that needs no other file."""

import base64
import io
from pathlib import Path

from PIL import Image

__all__ = ["as_data"]


def as_data(path: Path, most: int) -> tuple[str, bool]:
    """A picture as the text of a `data:` address, and whether it was made smaller.

    Args:
        path: a PNG.
        most: pixels of its longer side; a larger one is scaled down.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            shrinks = max(image.size) > most
            if shrinks:
                image.thumbnail((most, most), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            image.convert(image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB").save(file, "png", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", shrinks
