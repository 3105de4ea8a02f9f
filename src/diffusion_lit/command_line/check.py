"""Settings of the right kind, by the signatures of the classes that they go to: said before any work starts."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import CONFIG_FOLDER, groups_of, read
from diffusion_lit.command_line.described import Class, describe
from diffusion_lit.command_line.kind import Schema, convert, fits, literal, schema_of, schema_of_value, words_for
from diffusion_lit.command_line.suggestion import similar, unknown_key

__all__ = ["argument_kind", "check_settings", "top_kind"]

PLATFORM = ("diffusion_lit", "torch", "lightning")
"""Packages whose annotations are known to mean what they say."""

OTHER_KINDS = {
    "trainer.max_steps": "int | None",
    "trainer.max_images": "int | None",
    "trainer.max_minutes": "float | None",
    "trainer.devices": "int | list[int] | Literal['auto']",
    "trainer.val_check_interval": "int",
    "objective_mode": "Literal['min', 'max']",
    "seed": "int",
    "evaluate.seed": "int | list[int]",
    "steps": "int | list[int] | None",
    "evaluate.guidance": "float | list[float]",
    "allow": "list[str]",
    "indices": "list[int] | None",
    "interpolate": "int | None",
    "guidance_interval": "list[float] | None",
    "precision": "str | int | None",
    "out": "str",
    "prepare.root": "str",
    "format": "str | list[str]",
    "export.format": "str",
    "metrics": "dict",
    "train.space": "str | dict",
    "run_dir": "str",
    **dict.fromkeys(("trainer.default_root_dir", "prepare.out", "report.out", "animation", "latents"), "str | None"),
    **dict.fromkeys(("ckpt", "guide", "license", "push_to", "resume", "init"), "str | None"),
}
"""Kinds that neither a class nor a default tells, by their keys, or by COMMAND.KEY; as annotations."""


@cache
def other_kind(key: str) -> Schema | None:
    return convert(ast.parse(OTHER_KINDS[key], mode="eval").body) if key in OTHER_KINDS else None


def top_kind(command: str, key: str, default: object) -> Schema:
    """The kind of a setting of `conf/COMMAND.yaml` that goes to no class."""
    named = other_kind(f"{command}.{key}") or other_kind(key)
    return schema_of_value(default) if named is None else named


def argument_kind(cls: Class, key: str) -> Schema:
    """The kind of a setting, by its full key, that is an argument of a class."""
    return other_kind(key) or schema_of(cls.arguments[key.rpartition(".")[2]])


@cache
def configured(target: str) -> Mapping[str, tuple[Any, ...]]:
    """What the files of conf/ give a class, by argument: allowed whatever the signature says, such as `auto`."""
    found: dict[str, tuple[Any, ...]] = {}
    for file in CONFIG_FOLDER.rglob("*.yaml"):
        settings = read(file).settings
        for key, setting in settings.items():
            part, _, name = key.rpartition(".")
            if getattr(settings.get(f"{part}._target_" if part else "_target_"), "value", None) == target:
                found[name] = (*found.get(name, ()), setting.value)
            elif "_target_" not in settings and not part:  # a member that inherits its class from another file
                found.setdefault(name, ())
    return found


def check_settings(cfg: DictConfig, command: str, merged: Collection[str] = ()) -> None:
    """Check every setting of a command: something reads it, and it is of a kind that this takes.

    Args:
        cfg: the configuration, composed.
        command: its name.
        merged: groups of which several members are chosen, so that their settings lie in one.

    Raises:
        ValueError: naming the key, its value, what is allowed, and what may have been meant.
    """
    values = OmegaConf.to_container(cfg, resolve=False)  # what refers to another place is looked at there
    assert isinstance(values, dict)
    known = read(CONFIG_FOLDER / f"{command}.yaml").settings
    own = {*groups_of(command), *(key.partition(".")[0] for key in known)}
    if unknown := [str(key) for key in values if key not in own]:
        raise ValueError(unknown_key(command, unknown[0], None))
    for path, part in parts(values, ""):
        check_part(part, path, command, path in merged)
    for group in groups_of(command):
        check_chosen(group, values.get(group))
    for name, setting in known.items():
        if values.get(name) == "???":
            needed = f"{command} needs {name}=VALUE, {setting.comment}"
            raise ValueError(f"{name}= is not given: {needed}. See python -m diffusion_lit.{command} --help")
        if "." not in name and name in values:
            check_value(name, values[name], top_kind(command, name, setting.value))


def parts(value: object, path: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Everything in a configuration that a class is to be built from, with its key."""
    if isinstance(value, dict) and "_target_" in value:
        yield path, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from parts(inner, f"{path}.{key}" if path else str(key))


def check_chosen(group: str, value: object) -> None:
    """Check a group that is several parts by name, as callbacks are: each that has settings has a class."""
    if isinstance(value, dict) and "_target_" not in value:
        for name, part in value.items():
            if isinstance(part, dict) and "_target_" not in part:
                raise ValueError(
                    f"{group}.{name} has settings ({', '.join(map(str, part))}) and no _target_: they are of a part "
                    f"that is not chosen. Choose it with {group}=, or leave them out with {group}.{name}=null"
                )


def check_part(part: Mapping[Any, Any], path: str, command: str, merged: bool) -> None:
    """Check what is given to one class."""
    target = part["_target_"]
    if not isinstance(target, str) or target.partition(".")[0] not in PLATFORM or not (cls := describe(target)):
        return
    for name, value in part.items():
        key = f"{path}.{name}" if path else str(name)
        if str(name).startswith("_"):
            continue
        if name in cls.arguments and not merged:
            check_value(key, value, argument_kind(cls, key), cls, target)
        elif name not in cls.arguments and not (cls.is_open or merged or name in configured(target)):
            meant = similar(name, cls.arguments)
            hint = f"did you mean {path}.{meant[0]}?" if meant else advice(cls, command, key)
            raise ValueError(f"{cls.name} has no argument {name} ({key}): {hint}")
        elif kind := other_kind(key):  # such as a limit that our trainer has and Lightning's has not
            check_value(key, value, kind)


def advice(cls: Class, command: str, key: str) -> str:
    said = unknown_key(command, key, None)
    if "did you mean" in said:
        return said.partition(": ")[2]
    if len(cls.arguments) > 15:
        return f"see python -m diffusion_lit.{command} --help {key.partition('.')[0]}"
    return f"it takes {', '.join(cls.arguments)}" if cls.arguments else "it takes none"


def check_value(key: str, value: object, allowed: Schema, cls: Class | None = None, target: str = "") -> None:
    """Check a value, unless it refers to another or is still to be given."""
    if fits(value, allowed) or refers(value) or value == "???":
        return
    name = key.rpartition(".")[2]
    given = [other for other in configured(target).get(name, ()) if not refers(other)]
    if value in given:
        return
    default = shown(given[0]) if given else literal(cls, name) if cls else ""
    raise ValueError(f"{key} must be {words_for(allowed)}, got {shown(value)}{remedy(key, value, allowed, default)}")


def shown(value: object) -> str:
    """A value as a message shows it."""
    if isinstance(value, str):
        return repr(value)
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def refers(value: object) -> bool:
    """Whether a value has an interpolation in it."""
    if isinstance(value, str):
        return "${" in value
    return any(map(refers, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def remedy(key: str, value: object, allowed: Schema, default: str) -> str:
    kinds = [option.get("type") for option in allowed.get("anyOf", [allowed])]
    if value in ("None", "none") and "null" in kinds:
        return f": type {key}=null"
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return f": type {key}={int(value)}"
    if isinstance(value, str) and "number" in kinds and re.fullmatch(r"[\d.]+%", value):
        return f": {value} is {key}={float(value[:-1]) / 100:g}"
    return f"; its default is {default}" if default else ""
