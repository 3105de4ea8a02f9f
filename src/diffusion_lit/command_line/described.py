"""What a class takes, read from its source without importing it: that would take seconds, and run code."""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from diffusion_lit.command_line.catalogue import is_own

__all__ = ["Argument", "Class", "describe"]

CLOSED = {"ABC", "Module", "Protocol", "Generic", "object"}
"""Bases whose constructors take nothing that a configuration could give."""
AS_IN = re.compile(r"as (?:in |of )?`(\w+)`")


@dataclass(frozen=True)
class Argument:
    """An argument of a constructor.

    Args:
        annotation: its type, as it is written; None if it is not.
        default: its default, as it is written; None if it must be given.
        text: what the docstring says of it.
    """

    annotation: ast.expr | None
    default: ast.expr | None
    text: str = ""


@dataclass(frozen=True)
class Class:
    """A class as its source describes it.

    Args:
        target: its full name.
        summary: the first line of its file's docstring.
        about: the first paragraph of its own.
        arguments: what its constructor takes, by name.
        is_open: whether there may be further ones, such as `**arguments`.
    """

    target: str
    summary: str
    about: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    is_open: bool = False

    @property
    def name(self) -> str:
        return self.target.rpartition(".")[2]


@cache
def describe(target: str) -> Class | None:
    """The class with that full name; None if it does not exist, or its source cannot be read."""
    module, _, name = target.rpartition(".")
    if not module or not (file := file_of(module)):
        return None
    tree = parsed(file)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return describe_node(node, module, tree)
    origin = imported_from(tree, name, module, file)
    return describe(origin) if origin and origin != target else None


def file_of(module: str) -> Path | None:
    """The source of a module; nothing is imported."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    for part in parts:
        if path.name != "__init__.py":
            return None
        candidates = (path.parent / part / "__init__.py", path.parent / f"{part}.py")
        path = next((candidate for candidate in candidates if candidate.is_file()), Path())
    return path if path.is_file() else None


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported_from(tree: ast.Module, name: str, module: str, file: Path) -> str | None:
    """The full name that a file imports as `name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = module.split(".")[: None if file.name == "__init__.py" else -1]
                    above = package[: len(package) - node.level + 1] if node.level else []
                    return ".".join([*above, *filter(None, [node.module]), alias.name])
    return None


def describe_node(node: ast.ClassDef, module: str, tree: ast.Module) -> Class:
    text = ast.get_docstring(node) or ""
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    bases = [base for base in node.bases if name_of(base) not in CLOSED]
    parents = [parent for base in bases if (parent := sibling(name_of(base), module, tree))]
    inherited: dict[str, Argument] = {}
    for parent in reversed(parents):
        inherited |= parent.arguments
    is_open = len(parents) < len(bases) or any(parent.is_open for parent in parents)
    own, takes_more = {}, False
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is not None:
        own, takes_more = dict(parameters(init)), init.args.kwarg is not None
    elif any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        own, takes_more = dict(fields(node)), True
    else:
        takes_more = True  # whatever its parents take
    texts = documented(text)
    for names, described in texts.items():
        other = AS_IN.match(described)
        origin = sibling(other[1], module, tree) if other else None
        if origin is not None and names in origin.arguments:
            texts[names] = origin.arguments[names].text
    arguments = {**(inherited if takes_more else {}), **own}
    arguments = {
        name: Argument(a.annotation, a.default, texts.get(name) or (inherited[name].text if name in inherited else ""))
        for name, a in arguments.items()
    }
    about = " ".join(text.partition("\n\n")[0].split())
    unseen = init is not None and takes_more and (not inherited or not is_own(module))
    return Class(f"{module}.{node.name}", summary, about, arguments, takes_more and (is_open or unseen))


def name_of(node: ast.expr) -> str:
    """`Base` of a base that is written as Base, module.Base or Base[T]."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def sibling(name: str, module: str, tree: ast.Module) -> Class | None:
    """The class that is called `name` in a module."""
    if any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
        return describe(f"{module}.{name}")
    file = file_of(module)
    origin = imported_from(tree, name, module, file) if file else None
    return describe(origin) if origin else None


def parameters(init: ast.FunctionDef) -> Iterator[tuple[str, Argument]]:
    args = init.args
    plain = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    for arg, default in [*zip(plain, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]:
        if arg.arg != "self":
            yield arg.arg, Argument(arg.annotation, default)


def fields(node: ast.ClassDef) -> Iterator[tuple[str, Argument]]:
    """The fields of a dataclass that its constructor takes."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id != "_":
            kind = ast.unparse(line.annotation)
            if not kind.startswith("ClassVar") and "init=False" not in ast.unparse(line.value or line.annotation):
                yield line.target.id, Argument(line.annotation, line.value)


def documented(docstring: str) -> dict[str, str]:
    """What the section `Args:` of a docstring says of each argument, on one line."""
    texts: dict[str, str] = {}
    names: list[str] = []
    inside, indent = False, 0
    for line in docstring.splitlines():
        depth = len(line) - len(line.lstrip())
        if not inside:
            inside, indent = bool(re.match(r" *Args\b.*:$", line)), depth
        elif line.strip() and depth <= indent:
            inside = False
        elif found := re.match(rf" {{{indent + 4}}}(\w[\w, ]*): (.*)", line):
            names = [name.strip() for name in found[1].split(",")]
            texts |= dict.fromkeys(names, found[2])
        else:
            texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    return texts
