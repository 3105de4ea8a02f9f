"""What mkdocs calls while it builds the site."""

import re
from html import unescape
from typing import Any

import api_pages
import configuration
import readme
from code_links import link_code

EQUATION = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\(?:\(|\[)(?P<tex>.*?)\\(?:\)|\])</(?P=tag)>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from other files."""
    from mkdocs.structure.files import File

    for name, text in (readme.read_pages() | configuration.make_pages() | api_pages.make_pages()).items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return link_code(readme.rewrite_links(markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Equations as MathML, which browsers draw by themselves: no script, no font, no network."""
    from latex2mathml.converter import convert

    def draw(equation: re.Match[str]) -> str:
        display = "block" if equation["tag"] == "div" else "inline"
        return convert(unescape(equation["tex"]).strip(), display=display)

    return EQUATION.sub(draw, html)
