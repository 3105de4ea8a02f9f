"""The commands that documents, recipes and help texts show."""

import re
import shlex
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.launch import ROOT

__all__ = [
    "COMMAND",
    "DOCUMENTS",
    "PAGES",
    "blocks",
    "command_lines",
    "commands_in",
    "commands_shown",
    "translations",
]

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
)
DOCUMENTS = [
    *PAGES,
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("experiment", "hydra/help")
        for path in (ROOT / "conf" / folder).glob("*.yaml")
    ),
]
COMMAND = re.compile(
    r"""(?:python -m diffusion_lit\.|diffusion-lit |-m diffusion_lit\.)(\w+)(?!\w|:)\s*(.*?)(?:\)"|\s*>\s.*|$)"""
)
"""A command of ours, however it is launched: its name and arguments."""


@cache
def tokens(document: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / document).read_text())


def blocks(document: str, *languages: str) -> list[str]:
    """The blocks of code in one of the languages, in their order."""
    return [token.content for token in tokens(document) if token.type == "fence" and token.info in languages]


def command_lines(document: str) -> list[str]:
    """The lines of shell blocks, continued ones joined; comments, variables and a script's first lines left out."""
    text = "".join(blocks(document, "sh", "bash"))
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def commands_shown(document: str) -> list[str]:
    """Our commands as they are printed, those in shell blocks and those within lines of text that have arguments."""
    if document in PAGES:
        parts = [part for token in tokens(document) for part in token.children or []]
        inline = [part.content for part in parts if part.type == "code_inline"]
        with_arguments = [code for code in inline if (match := COMMAND.search(code)) and match[2]]
        texts = [*command_lines(document), *with_arguments]
    else:
        lines = [line.lstrip("# ") for line in (ROOT / document).read_text().splitlines()]
        texts = [line for line in lines if line.startswith(("python -m", "diffusion-lit"))]
    return [text for text in texts if COMMAND.search(text) and "..." not in text]


def commands_in(document: str) -> list[tuple[str, list[str]]]:
    """Our commands with their arguments, those that have any."""
    found = [match for text in commands_shown(document) if (match := COMMAND.search(text))]
    return [(match[1], shlex.split(match[2], comments=True)) for match in found if match[2] and match[1].islower()]


def translations(document: str) -> list[list[str]]:
    """Settings that tables of pairs, theirs and ours, have in all columns but the first."""
    rows = [line for line in (ROOT / document).read_text().splitlines() if line.startswith("| ")]
    codes = [code for row in rows for code in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1])]
    words = [shlex.split(code) for code in codes]
    return [some for some in words if all(re.fullmatch(r"[\w.+~/@]+=.+", word) for word in some)]
