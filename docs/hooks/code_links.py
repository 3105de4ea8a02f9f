"""`path.py:Symbol` in a document, as a link to the lines of the source that define it."""

import ast
import re
from functools import cache
from pathlib import Path

__all__ = ["PACKAGE", "REFERENCE", "REPOSITORY", "find_lines", "link_code"]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "diffusion_lit"
REPOSITORY = "https://github.com/diffusion-lit/diffusion-lit"
REFERENCE = re.compile(r"`([\w/]+\.py):([\w.]+)`")
"""A file of the package and a name in it: `schedule/base.py:Schedule.posterior`."""


@cache
def parse(path: str) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def find_lines(path: str, symbol: str) -> tuple[int, int]:
    """The first and the last line of what `symbol` names in a file of the package: a class, function or variable.

    Raises:
        ValueError: if the file does not exist, or does not define that name.
    """
    if not (PACKAGE / path).is_file():
        raise ValueError(f"a document refers to {path}:{symbol}, and src/diffusion_lit has no {path}")
    node: ast.AST = parse(path)
    for name in symbol.split("."):
        inner = [child for child in ast.iter_child_nodes(node) if name in names_of(child)]
        if not inner:
            raise ValueError(f"a document refers to {path}:{symbol}, and the file has no {name} there")
        node = inner[0]
    assert isinstance(node, ast.stmt) and node.end_lineno is not None
    return node.lineno, node.end_lineno


def names_of(node: ast.AST) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def link_code(markdown: str) -> str:
    """The document with each reference as a link. A ValueError for one to nothing."""

    def link(reference: re.Match[str]) -> str:
        first, last = find_lines(*reference.groups())
        return f"[{reference[0]}]({REPOSITORY}/blob/main/src/diffusion_lit/{reference[1]}#L{first}-L{last})"

    return REFERENCE.sub(link, markdown)
