"""The JSON Schema of configuration files, by which editors complete and check them: `diffusion-lit schema`.

One schema for the top-level files and experiments, in which each group's part takes what any of its members takes.
"""

import json
from typing import Any

from diffusion_lit.command_line.catalogue import (
    COMMANDS,
    CONFIG_FOLDER,
    Setting,
    groups_of,
    member_settings,
    members,
    read,
)
from diffusion_lit.command_line.check import argument_kind, top_kind
from diffusion_lit.command_line.described import describe

__all__ = ["build", "text"]

REFERENCE = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
"""An interpolation, or what is still to be given: allowed anywhere."""
HYDRA = {"description": "Hydra's own: see --hydra-help"}


def text() -> str:
    """The schema as a file."""
    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


WRITTEN_OUT = ("denoiser", "execution", "module")
"""Parts of a run that have no group: conf/train.yaml has all of them."""


def build() -> dict[str, Any]:
    """The schema of conf/train.yaml and the other commands' files, of experiments, and of a group's members."""
    groups = sorted({group for command in COMMANDS for group in groups_of(command)} - {"experiment"})
    parts = {group: part_schema(group) for group in groups}
    properties: dict[str, Any] = {"defaults": defaults_schema(), "hydra": HYDRA}
    properties |= {group: {"$ref": f"#/$defs/{group}"} for group in groups}
    properties |= {name: {"$ref": f"#/$defs/{name}"} for name in WRITTEN_OUT}
    for command in COMMANDS:
        for key, setting in read(CONFIG_FOLDER / f"{command}.yaml").settings.items():
            if "." not in key:
                own = described(top_kind(command, key, setting.value), setting, f"of {command}")
                properties[key] = merged(properties[key], own) if key in properties else own
    train = read(CONFIG_FOLDER / "train.yaml").settings
    for name in WRITTEN_OUT:
        parts[name] = {
            "type": "object",
            "properties": {k.partition(".")[2]: described({}, train[k]) for k in train if k.startswith(f"{name}.")},
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "diffusion-lit configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": parts,
    }


def described(kind: Any, setting: Setting | None, otherwise: str = "") -> dict[str, Any]:
    """A kind of value with its meaning, or a reference to another setting in its place."""
    schema: dict[str, Any] = {"anyOf": [*kind.get("anyOf", [kind]), REFERENCE]} if kind else {}
    said = setting.comment if setting and setting.comment else otherwise
    return {**schema, "description": said} if said else schema


def defaults_schema() -> dict[str, Any]:
    """Hydra's list of the files that a file starts from."""
    entry = {"anyOf": [{"type": "string"}, {"type": "object"}]}
    return {
        "type": "array",
        "items": entry,
        "description": "the files that this one starts from, and what overrides them",
    }


def part_schema(group: str) -> dict[str, Any]:
    """What the members of a group set, together: parts in parts, by the classes that they go to."""
    tree: dict[str, Any] = {}
    for name in members(group):
        settings = dict(member_settings(group, name))
        for key, setting in settings.items():
            *path, last = key.removeprefix(f"{group}.").split(".")
            part, _, _ = key.rpartition(".")
            target = settings.get(f"{part}._target_") or settings.get("_target_")
            cls = describe(str(target.value)) if target else None
            node = tree
            for step in path:
                node = node.setdefault("properties", {}).setdefault(step, {})
            properties = node.setdefault("properties", {})
            if cls is not None:
                node["additionalProperties"] = node.get("additionalProperties", False) or cls.is_open
                for argument in cls.arguments:
                    own = described(argument_kind(cls, f"{part}.{argument}"), None, cls.arguments[argument].text)
                    properties[argument] = merged(properties[argument], own) if argument in properties else own
            known = last in properties and "anyOf" in properties[last]
            if not known:
                properties.setdefault(last, {})
            elif not last.startswith("_") and setting.value is not None:  # such as auto, which no signature says
                properties[last] = merged(properties[last], {"anyOf": [{"const": setting.value}]})
    return closed(tree)


def closed(tree: dict[str, Any]) -> dict[str, Any]:
    """A part that takes these settings alone, unless it has a class of the user's own."""
    if "properties" not in tree:
        return tree
    properties = {name: closed(part) for name, part in tree["properties"].items()}
    properties |= {name: {"type": ["string", "boolean"]} for name in ("_target_", "_partial_", "_convert_")}
    properties["defaults"] = defaults_schema()
    others = tree.get("additionalProperties", {"type": "object", "required": ["_target_"]})  # such as callback.mine
    strict = {"properties": properties, "additionalProperties": others}
    foreign = {"required": ["_target_"], "properties": {"_target_": {"pattern": r"^(?!diffusion_lit\.)"}}}
    return {**REFERENCE, "type": ["object", "null", "string"], "if": foreign, "else": strict}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What fits either."""
    if "anyOf" not in one or "anyOf" not in other:
        return {key: value for key, value in one.items() if key == "description"}
    return {**one, "anyOf": [*one["anyOf"], *(option for option in other["anyOf"] if option not in one["anyOf"])]}
