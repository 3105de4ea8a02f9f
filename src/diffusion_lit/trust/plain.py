"""Values that came with a file: plain ones, of the types that are expected of them."""

import json
import math
from collections.abc import Hashable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

__all__ = ["plain", "printable", "read_as", "read_json", "read_yaml"]

MAX_DEPTH = 50
MAX_VALUES = 100_000
SHOWN = 200
"""Characters of a value that a message shows."""


def printable(value: object) -> str:
    """A value from a file for a message: cut, and without characters that a terminal would obey."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def plain(value: object, origin: str) -> Any:
    """A copy of `value`, which must be dictionaries with text as keys, lists, text, numbers, booleans and None alone.

    Interpolations, which would read the environment, are not plain text. Values that contain themselves, or that a few
    bytes repeat without end, are refused before they fill the memory.

    Args:
        value: what a file holds.
        origin: the file, for messages.

    Raises:
        ValueError: if there is anything else in it; the message names the key.
    """
    budget = iter(range(MAX_VALUES))

    def copy(part: object, key: str, depth: int) -> Any:
        if next(budget, None) is None or depth > MAX_DEPTH:
            raise ValueError(
                f"{origin} is refused: it has over {MAX_VALUES} values, or nests them over {MAX_DEPTH} deep"
            )
        if type(part) is dict:
            for name in part:
                if type(name) is not str:
                    raise ValueError(f"{origin}: {key or 'it'} has the key {printable(name)}, and keys must be text")
            return {name: copy(inner, f"{key}.{name}" if key else name, depth + 1) for name, inner in part.items()}
        if type(part) is list:
            return [copy(inner, f"{key}[{i}]", depth + 1) for i, inner in enumerate(part)]
        if type(part) is str and ("${" in part or part == "???"):
            raise ValueError(
                f"{origin}: {printable(key)} is {printable(part)}, and a file's settings are taken as they are, "
                "without interpolations: write the value itself"
            )
        if part is None or type(part) in (str, int, float, bool):
            return part
        raise ValueError(
            f"{origin}: {printable(key)} is a {type(part).__name__}, and a file's settings must be text, numbers, "
            "booleans, null, lists and dictionaries"
        )

    return copy(value, "", 0)


def read_as(hint: Any, value: object, where: str) -> Any:
    """`value`, as JSON has it, as the type `hint`: dataclasses of dictionaries, tuples of lists.

    A dataclass must have all of its fields but those with defaults, and no others; a float may be a whole number, and
    must be finite.

    Raises:
        ValueError: if it is of another type; the message names the key.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        known = get_type_hints(hint)
        needed = {f.name for f in fields(hint) if f.default is MISSING and f.default_factory is MISSING}
        if type(value) is not dict or not needed <= value.keys() <= known.keys():
            raise ValueError(f"{where} must have {', '.join(known)}, got {printable(value)}")
        return hint(**{name: read_as(known[name], part, f"{where}.{name}") for name, part in value.items()})  # type: ignore[operator]
    if origin is UnionType:
        if value is None and NoneType in arguments:
            return None
        *others, last = [argument for argument in arguments if argument is not NoneType]
        fitting = [other for other in others if type(value) is (get_origin(other) or other)]
        return read_as(fitting[0] if fitting else last, value, where)
    if origin is list and type(value) is list:
        return [read_as(arguments[0], part, f"{where}[{i}]") for i, part in enumerate(value)]
    if origin is tuple and type(value) is list and len(value) == len(arguments):
        return tuple(read_as(inner, part, where) for inner, part in zip(arguments, value, strict=True))
    if origin is dict and type(value) is dict:
        return {name: read_as(arguments[1], part, f"{where}.{name}") for name, part in value.items()}
    if hint is Any or type(value) is hint:
        if type(value) is float and not math.isfinite(value):
            raise ValueError(f"{where} must be finite, got {value}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    raise ValueError(f"{where} must be {getattr(hint, '__name__', hint)}, got {printable(value)}")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: if it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON, or is damaged ({type(error).__name__}: {error})") from error


class YamlLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Without aliases, by which a few lines can stand for more than fits into memory."""

    def compose_node(self, parent: yaml.Node | None, index: Hashable) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain settings that a YAML file holds.

    Raises:
        ValueError: if it is not YAML, or there is more in it than plain settings.
    """
    try:
        value = yaml.load(path.read_bytes(), YamlLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not YAML, or is damaged ({type(error).__name__}: {reason})") from error
    if type(value) is not dict:
        raise ValueError(f"{path} has no settings in it")
    settings: dict[str, Any] = plain(value, str(path))
    return settings
