"""Pictures for a page that needs no other file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion_lit.page.chart import evenly
from diffusion_lit.run.past import PICTURES, PastRun

__all__ = ["LARGEST", "Picture", "as_data", "pictures_of"]

MOST_FRAMES, LARGEST = 24, 800
"""Pictures of a run and kind that a page holds, and the pixels of their longer side."""
MAX_PIXELS = 2**26
"""A picture of more is not opened: it would not fit into memory, or is made to fill it."""


@dataclass(frozen=True)
class Picture:
    """A picture as the text of a `data:` address."""

    data: str
    width: int
    height: int
    reduced: bool
    """Whether it was larger."""


def as_data(path: Path, most: int) -> Picture:
    """A PNG file; one whose longer side has over `most` pixels is scaled down.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, over {MAX_PIXELS:,}")
            reduced = max(image.size) > most
            shown = image.convert(image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB")
            if reduced:
                shown.thumbnail((most, most), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            shown.save(file, "png", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error
    data = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(data, *shown.size, reduced)


def pictures_of(runs: Sequence[PastRun], left_out: list[str]) -> dict[str, Any]:
    """The pictures over training, a row for each run and kind, and the steps that a slider has.

    Args:
        runs: whose pictures.
        left_out: receives what cannot be read.
    """
    rows = []
    for run in runs:
        for kind, steps in run.pictures.items():
            frames = []
            for step in evenly(list(steps), MOST_FRAMES):
                try:
                    frames.append((step, as_data(steps[step], LARGEST)))
                except ValueError as error:
                    left_out.append(f"{run.name}: {error}")
            said = [f"{MOST_FRAMES} of its {len(steps)} pictures"] * (len(steps) > MOST_FRAMES)
            said += [f"reduced to {LARGEST} pixels"] * any(picture.reduced for _, picture in frames)
            name = f"{run.name}, {PICTURES[kind]}" if PICTURES[kind] else run.name
            if frames:
                rows.append({"name": name, "frames": frames, "note": ", ".join(said)})
    return {"rows": rows, "steps": sorted({step for row in rows for step, _ in row["frames"]})}
