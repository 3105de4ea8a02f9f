"""What there is to choose: commands, groups, members and settings, read from conf/ at once, without Hydra."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    *("COMMANDS", "CONFIG_FOLDER", "FLOAT", "OWN", "PATHS", "ConfigFile", "Setting", "as_list", "chosen_settings"),
    *("groups_of", "is_own", "member_settings", "members", "read"),
]

OWN = "diffusion_lit"
PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"
"""Inside an installed package, or at the top of a checkout."""

COMMANDS = tuple(sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml")))
"""Each has its top-level configuration, `conf/NAME.yaml`."""

PATHS = {
    *("against", "autoencoder", "cache", "ckpt", "data_root", "default_root_dir", "dir", "dirpath", "evaluation"),
    *("filename", "folder", "guide", "init", "latents", "name", "out", "output_root", "output_subdir", "reference"),
    *("resume", "root", "run", "run_dir", "samples", "save_dir", "source", "subdir", "test_urls", "training", "urls"),
    *("val_urls", "weights"),
}
"""Keys whose values are text, by the last part of their names: files, folders, addresses."""

DIRECTIVE = re.compile(r"# (@package|yaml-language-server:) *(.*)")


SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML has it: ten times as fast


class Loader(SafeLoader):  # type: ignore[misc]
    """YAML as OmegaConf reads it: 1e-4 is a number."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?|\.(inf|nan))$"),
    list("-+0123456789."),
)
Loader.add_implicit_resolver(*FLOAT)


@dataclass(frozen=True)
class Setting:
    """A value of a configuration file, with the comment beside it."""

    value: Any
    comment: str = ""


@dataclass(frozen=True)
class ConfigFile:
    """A file of conf/.

    Args:
        about: the comment that it begins with, line by line.
        package: where its settings go, if not to where it lies (Hydra's `# @package`).
        defaults: the files that it starts from.
        settings: by their dotted keys; a list is one value.
    """

    about: tuple[str, ...]
    package: str | None
    defaults: tuple[Any, ...]
    settings: Mapping[str, Setting]


@cache
def is_own(name: str) -> bool:
    """Whether a module, or the full name of a class, is this package's."""
    return f"{name}.".startswith(f"{OWN}.")


def read(file: Path) -> ConfigFile:
    """A file of conf/ with its comments."""
    text = file.read_text()
    lines = text.splitlines()
    head = [line for line in lines[: next((i for i, line in enumerate(lines) if line[:1] != "#"), len(lines))]]
    directives = [found for line in head if (found := DIRECTIVE.fullmatch(line))]
    package = next((found[2] for found in directives if found[1] == "@package"), None)
    about = tuple(line.lstrip("# ") for line in head if not DIRECTIVE.fullmatch(line))
    loader = Loader(text)
    root = loader.get_single_node()
    settings: dict[str, Setting] = {}
    defaults: tuple[Any, ...] = ()

    def visit(node: yaml.MappingNode, prefix: str) -> None:
        nonlocal defaults
        for name, value in node.value:
            key = f"{prefix}{name.value}"
            if key == "defaults":
                defaults = tuple(loader.construct_object(value, deep=True))
            elif isinstance(value, yaml.MappingNode) and value.value:
                visit(value, f"{key}.")
            else:
                rest = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
                comment = rest.partition("# ")[2].strip() if rest.lstrip().startswith("#") else ""
                settings[key] = Setting(loader.construct_object(value, deep=True), comment)

    if isinstance(root, yaml.MappingNode):
        visit(root, "")
    return ConfigFile(about, package, defaults, settings)


def members(group: str) -> list[str]:
    """The names of a group's files; none of what is not a group."""
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


def groups_of(command: str) -> dict[str, list[str]]:
    """The groups of a command, each with the members that it chooses by default."""
    entries = read(CONFIG_FOLDER / f"{command}.yaml").defaults
    chosen = {group: choice for entry in entries if isinstance(entry, dict) for group, choice in entry.items()}
    return {group: as_list(choice) for group, choice in chosen.items() if not group.startswith("override ")}


def as_list(choice: object) -> list[str]:
    """The members that a choice names: one, several or none."""
    return [] if choice is None else list(map(str, choice)) if isinstance(choice, list) else [str(choice)]


def member_settings(group: str, name: str, package: str | None = None) -> Iterator[tuple[str, Setting]]:
    """What a member sets, by full keys, those of the files that it starts from first."""
    file = read(CONFIG_FOLDER / group / f"{name}.yaml")
    package = package if package is not None else {None: f"{group}.", "_global_": ""}.get(file.package)
    prefix = f"{file.package}." if package is None else package
    for entry in file.defaults:
        if isinstance(entry, str) and entry != "_self_":
            yield from member_settings(group, entry, package)
        elif isinstance(entry, dict):
            for place, choice in entry.items():
                other, _, key = place.removeprefix("/").partition("@")
                if key and members(other):
                    yield from member_settings(other, choice, f"{prefix}{key}.")
    for key, setting in file.settings.items():
        yield prefix + key, setting


def chosen_settings(command: str, choices: Iterable[tuple[str, object]] = ()) -> dict[str, Setting]:
    """The settings of a command by their dotted keys.

    Args:
        command: its name.
        choices: members that are chosen of groups, which there need not be.
    """
    chosen = groups_of(command)
    typed = {group: as_list(choice) for group, choice in choices if group in chosen}
    for name in typed.get("experiment", []):
        if name in members("experiment"):
            for entry in read(CONFIG_FOLDER / "experiment" / f"{name}.yaml").defaults:
                for place, choice in entry.items() if isinstance(entry, dict) else ():
                    chosen[place.removeprefix("override /")] = as_list(choice)
    chosen |= typed
    settings = {
        key: setting
        for key, setting in read(CONFIG_FOLDER / f"{command}.yaml").settings.items()
        if not key.startswith("hydra.")
    }
    for group, names in chosen.items():
        for name in names:
            if name in members(group):
                settings |= dict(member_settings(group, name))
    return settings
