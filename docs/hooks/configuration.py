"""The configuration reference, from the comments and defaults of conf/."""

import re
from pathlib import Path

from code_links import REPOSITORY, ROOT

from diffusion_lit.command_line.catalogue import COMMANDS, read
from diffusion_lit.command_line.help import summary_of, typed

__all__ = ["make_pages"]

CONF = ROOT / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def describe(path: Path, level: int) -> list[str]:
    """The part of a page that is about one file."""
    name, text = path.relative_to(CONF).as_posix(), path.read_text(encoding="utf-8")
    title = f"{path.parent.name}={path.stem}" if path.parent != CONF else f"diffusion_lit.{path.stem}"
    lines = [f"{'#' * level} `{title}`", "", f"[conf/{name}]({REPOSITORY}/blob/main/conf/{name})", ""]
    if path.parent.name == "experiment":
        return [*lines, "```yaml", text.rstrip(), "```", ""]
    file = read(path)
    about = "\n".join(file.about) or (summary_of(path.parent.name, path.stem) if path.parent != CONF else "")
    if about:
        lines += [escape(about), ""]
    prefix = {None: "" if path.parent == CONF else f"{path.parent.name}.", "_global_": ""}.get(
        file.package, f"{file.package}."
    )
    rows = {key: setting for key, setting in file.settings.items() if not key.startswith("hydra.")}
    if rows:
        lines += ["| setting | default | |", "| --- | --- | --- |"]
        lines += [f"| `{prefix}{key}` | {code(row.value)} | {escape(row.comment)} |" for key, row in rows.items()]
        lines.append("")
    return lines


def code(value: object) -> str:
    """A value as it is typed, as code in a table's cell."""
    return f"`{typed(value) or chr(34) * 2}`".replace("|", "\\|")


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
