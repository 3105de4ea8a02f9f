"""The page of runs as one file, which needs no other and no network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

import diffusion_lit
from diffusion_lit.files import replacing
from diffusion_lit.page.chart import MAX_POINTS
from diffusion_lit.page.content import content_of
from diffusion_lit.run.past import PastRun

__all__ = ["page_of", "write_page"]

HERE = Path(__file__).parent


def write_page(runs: Sequence[PastRun], path: Path) -> list[str]:
    """Write the page, whole or not at all. Returns what could not be read, and is not on it."""
    content = content_of(runs)
    with replacing(path) as file:
        file.write(page_of(content).encode())
    return list(content["left_out"])


def page_of(content: Mapping[str, Any]) -> str:
    """The page as HTML.

    Whatever came from a file is escaped, and no script runs but the page's own, which its hash in the page's policy
    names.
    """
    style, script = ((HERE / f"report.{kind}").read_text() for kind in ("css", "js"))
    return template().render(
        content,
        style=Markup(style),
        script=Markup(script),
        style_hash=checksum(style),
        script_hash=checksum(script),
        most_points=MAX_POINTS,
        version=diffusion_lit.__version__,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


@cache
def template() -> Template:
    environment = Environment(
        loader=PackageLoader("diffusion_lit", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    return environment.get_template("report.html")


def printable(value: Any) -> Any:
    """Text without characters that would reorder or hide others; lines stay."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)


def checksum(text: str) -> str:
    """As a Content-Security-Policy names a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
