"""The configuration reference, from the comments and defaults of conf/."""

import re
from dataclasses import dataclass
from pathlib import Path

from code_links import REPOSITORY, ROOT

__all__ = ["Setting", "make_pages", "read_settings"]

CONF = ROOT / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
PACKAGE_LINE = re.compile(r"# @package (\w+)")
COMMANDS = ("train", "sample", "evaluate", "prepare", "inspect", "plot")
LINE = re.compile(r"(?P<indent> *)(?P<key>[\w@./-]+):(?: (?P<value>.*?))?(?: *(?<!\S)# (?P<comment>.*))?$")


@dataclass(frozen=True)
class Setting:
    """A line of a file: its dotted key, its default as it is written, and its comment."""

    key: str
    default: str
    comment: str


def read_settings(text: str) -> tuple[str, list[Setting]]:
    """The comment at the head of a YAML file, and its settings; choices of groups (`defaults`) are left out."""
    head: list[str] = []
    settings: list[Setting] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.startswith("#"):
            if not settings and not line.startswith("# @package"):
                head.append(line.lstrip("# ").rstrip())
            continue
        match = LINE.fullmatch(line.rstrip())
        if match is None:
            continue
        indent = len(match["indent"])
        path = [(depth, key) for depth, key in path if depth < indent]
        key = ".".join([*(key for _, key in path), match["key"]])
        if not match["value"]:
            path.append((indent, match["key"]))
            if not match["comment"]:
                continue
        if key.partition(".")[0] != "defaults":
            settings.append(Setting(key, match["value"] or "", match["comment"] or ""))
    return "\n".join(head), settings


def describe(path: Path, level: int) -> list[str]:
    """The part of a page that is about one file."""
    name, text = path.relative_to(CONF).as_posix(), path.read_text(encoding="utf-8")
    title = f"{path.parent.name}={path.stem}" if path.parent != CONF else f"diffusion_lit.{path.stem}"
    lines = [f"{'#' * level} `{title}`", "", f"[conf/{name}]({REPOSITORY}/blob/main/conf/{name})", ""]
    if path.parent.name == "experiment":
        return [*lines, "```yaml", text.rstrip(), "```", ""]
    head, settings = read_settings(text)
    if head:
        lines += [escape(head), ""]
    package = PACKAGE_LINE.match(text)
    prefix = {"": "" if path.parent == CONF else f"{path.parent.name}.", "_global_": ""}.get(
        in_package := package[1] if package else "", f"{in_package}."
    )
    rows = [row for row in settings if not row.key.startswith("hydra.")]
    if rows:
        lines += ["| setting | default | |", "| --- | --- | --- |"]
        lines += [f"| `{prefix}{row.key}` | {code(row.default)} | {escape(row.comment)} |" for row in rows]
        lines.append("")
    return lines


def code(text: str) -> str:
    """Text as code in a table's cell."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def escape(text: str) -> str:
    """Text in which nothing is taken for markup."""
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


def make_pages() -> dict[str, str]:
    """A page of the commands' own settings, and one for each group."""
    commands = ["# Commands", "", "The settings of each command, besides the groups that it chooses from.", ""]
    for name in COMMANDS:
        commands += describe(CONF / f"{name}.yaml", 2)
    pages = {"configuration/commands.md": "\n".join(commands)}
    for group in GROUPS:
        lines = [f"# {group}", ""]
        for path in sorted((CONF / group).glob("*.yaml")):
            lines += describe(path, 2)
        pages[f"configuration/{group}.md"] = "\n".join(lines)
    return pages
