"""Which values an argument takes: its annotation as a JSON Schema, whether a value fits it, and how that is said."""

import ast
import math
from collections.abc import Mapping
from typing import Any

from diffusion_lit.command_line.described import Argument, Class

__all__ = ["Schema", "fits", "literal", "schema_of", "schema_of_value", "words_for"]

Schema = Mapping[str, Any]
"""As much of JSON Schema as annotations need: type, enum, items, prefixItems, anyOf. The empty one takes anything."""

PLAIN = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "Path": "string",
    "None": "null",
    "dict": "object",
    "Mapping": "object",
    "list": "array",
    "List": "array",
    "Sequence": "array",
    "Iterable": "array",
    **dict.fromkeys(
        (
            *("Augmentation", "Density", "Denoiser", "Execution", "FeatureExtractor", "LRSchedule", "Loss", "Metric"),
            *("Network", "Parameterization", "Sampler", "Schedule", "Space", "Weighting"),
        ),
        "object",
    ),
}
NOTHING: Schema = {"enum": []}
"""What no configuration can hold."""
WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "object": "a part with a _target_ of its own",
}


def schema_of(argument: Argument) -> Schema:
    """The values that an argument takes, by its annotation; any where that is missing or names what is not plain."""
    return {} if argument.annotation is None else convert(argument.annotation)


def convert(node: ast.expr) -> dict[str, Any]:
    if isinstance(node, ast.Constant):
        return {"type": "null"} if node.value is None else text_of(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return either(convert(node.left), convert(node.right))
    if isinstance(node, ast.Subscript):
        return convert_generic(last_name(node.value), node.slice)
    name = last_name(node)
    if name == "Tensor":
        return dict(NOTHING)
    return {"type": PLAIN[name]} if name in PLAIN else {}


def convert_generic(name: str, inner: ast.expr) -> dict[str, Any]:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Optional":
        return either(convert(inner), {"type": "null"})
    if name == "Union":
        return either(*map(convert, parts))
    if name == "Literal":
        return {"enum": [part.value for part in parts if isinstance(part, ast.Constant)]}
    if name in ("tuple", "Tuple"):
        if isinstance(parts[-1], ast.Constant) and parts[-1].value is Ellipsis:
            return {"type": "array", "items": convert(parts[0])}
        return {
            "type": "array",
            "prefixItems": [convert(part) for part in parts],
            "minItems": len(parts),
            "maxItems": len(parts),
        }
    if PLAIN.get(name) == "array":
        return {"type": "array", "items": convert(inner)}
    return {"type": PLAIN[name]} if name in PLAIN else {}


def text_of(value: object) -> dict[str, Any]:
    """An annotation within quotes."""
    try:
        return convert(ast.parse(value, mode="eval").body) if isinstance(value, str) else {}
    except SyntaxError:
        return {}


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def either(*schemas: dict[str, Any]) -> dict[str, Any]:
    """What fits one of them."""
    options: list[dict[str, Any]] = []
    for schema in schemas:
        if not schema:
            return {}
        options += [option for option in schema.get("anyOf", [schema]) if option not in (NOTHING, *options)]
    return options[0] if len(options) == 1 else {"anyOf": options}


def schema_of_value(value: object) -> Schema:
    """The kind of value that a default is; any where it does not tell, as null and lists do not."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int | float):
        return {"type": "integer" if isinstance(value, int) else "number"}
    return {"type": "string"} if isinstance(value, str) and value != "???" and "${" not in value else {}


def fits(value: object, schema: Schema) -> bool:
    """Whether a plain value is of a kind. 3 is a number, 3.0 is not a whole number; NaN and infinity are neither."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema.get("type")
    if kind == "array" and isinstance(value, list):
        each = schema.get("prefixItems")
        if each is not None:
            return len(value) == len(each) and all(map(fits, value, each))
        return all(fits(part, schema.get("items", {})) for part in value)
    known = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        "null": value is None,
        "object": isinstance(value, dict),
        "array": False,
    }
    return kind is None or known[kind]


def words_for(schema: Schema) -> str:
    """A kind in words, such as `a whole number or null`."""
    if "anyOf" in schema:
        options = [words_for(option) for option in schema["anyOf"]]
        return f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else options[0]
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"a list of {len(schema['prefixItems'])}"
        item = words_for(schema.get("items", {})).removeprefix("a ")
        return "a list" if item == "anything" else f"a list of {item}s"
    return WORDS.get(schema.get("type", ""), "anything")


def literal(cls: Class, name: str) -> str:
    """The default of an argument as it is typed on a command line; empty if it must be given."""
    default = cls.arguments[name].default
    if default is None:
        return ""
    text = f"[{ast.unparse(default)[1:-1]}]" if isinstance(default, ast.Tuple) else ast.unparse(default)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)
