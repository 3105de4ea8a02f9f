"""The gate between a configuration that came with a file, and `hydra.utils.instantiate`, which would run anything.

Plain values alone pass, and every `_target_` must name a class of this project, of the kind that its place takes. A
class of one's own passes where the command line, and not the file, names its module: `allow=[package.module]`. No
other module is imported, whatever a file names. None of it relies on what Hydra itself refuses: 1.3.2 refuses nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from inspect import Parameter, isclass, signature
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import OWN, is_own
from diffusion_lit.trust.plain import plain, printable

__all__ = ["Gate", "trusted"]

MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
RESERVED = re.compile(r"_\w+_")
"""Keys that tell Hydra how to build."""


def trusted(config: object, kind: type, origin: str, allow: Sequence[str] = ()) -> DictConfig:
    """`config`, ready to be instantiated.

    Args:
        config: the configuration of one object, plain containers.
        kind: the class that it must be of, or of a subclass.
        origin: the file that it came with, for messages.
        allow: modules whose classes may be named too; their submodules are included.

    Raises:
        ValueError: if there is anything but plain values in it, or it names anything but such classes; the message has
            the key, what it names and the remedy.
    """
    values = plain(config, origin)
    gate = Gate(origin, allow)
    if type(values) is not dict or "_target_" not in values:
        raise ValueError(f"{origin} is refused: where it should describe a {kind.__name__} it has {printable(values)}")
    gate.check(values, (), kind)
    return OmegaConf.create(values)


class Gate:
    """What may pass.

    Args:
        origin: the file that the configuration came with, for messages.
        allow: as `trusted`.

    Raises:
        ValueError: if `allow` is not a list of modules' names.
    """

    def __init__(self, origin: str, allow: Sequence[str] = ()) -> None:
        if isinstance(allow, str) or not all(isinstance(name, str) and MODULE.fullmatch(name) for name in allow):
            raise ValueError(f"allow={allow} is not a list of modules' names: give allow=[package.module]")
        self.origin = origin
        self.allow = tuple(allow)

    def check(self, node: dict[str, Any], path: tuple[str, ...], kind: type) -> None:
        """Check the description of an object, plain values, that is to be a `kind`."""
        cls = self.admit(node["_target_"], kind, path)
        for name, part in node.items():
            if name != "_target_" and RESERVED.fullmatch(name):
                self.check_option(name, part, path)
            elif name != "_target_":
                self.descend(part, (*path, name), self.expected(cls, (*path, name)))

    def descend(self, value: object, path: tuple[str, ...], kind: type | None) -> None:
        """Check a value at a place that takes a `kind`; None where no object is to be built."""
        if isinstance(value, list):
            for part in value:
                self.descend(part, path, kind)
        elif isinstance(value, dict) and "_target_" in value:
            if kind is None:
                raise self.refusal(path, value["_target_"], "and no object belongs there")
            self.check(value, path, kind)
        elif isinstance(value, dict):
            for name, part in value.items():
                if RESERVED.fullmatch(name):
                    self.check_option(name, part, path)
                self.descend(part, (*path, name), None)

    def check_option(self, name: str, value: object, path: tuple[str, ...]) -> None:
        """Refuse another of Hydra's keys: no model needs one."""
        raise ValueError(
            f"{self.origin} is refused, and nothing in it was run: {printable('.'.join((*path, name)))} is "
            f"{printable(value)}, which no configuration of this project has"
        )

    def expected(self, cls: type, path: tuple[str, ...]) -> type | None:
        """The kind of object that `cls` takes as its argument of the path's last name, by the argument's type."""
        kinds = [kind for kind in classes_in(hint_of(cls, path[-1])) if not is_data(kind)]
        if kinds:
            return kinds[0] if len(kinds) == 1 else None
        return object if is_within(cls.__module__, self.allow) else None

    def admit(self, target: object, kind: type, path: tuple[str, ...]) -> type:
        """The class that `target` names.

        Raises:
            ValueError: if it does not name one that may pass.
        """
        if not isinstance(target, str) or not MODULE.fullmatch(target) or "." not in target:
            raise self.refusal(path, target, "which is not the name of a class")
        module, _, name = target.rpartition(".")
        if not is_within(module, (OWN, *self.allow)):
            raise self.refusal(
                path,
                target,
                f"which is not a class of {OWN}. If you wrote that class yourself and trust it, add allow=[{module}]",
            )
        try:
            cls = vars(import_module(module)).get(name)
        except ImportError as error:
            why = f"and {module} cannot be imported ({error})"
            if not is_own(module):
                why += ". Start Python in the folder that it is in, or with PYTHONPATH=FOLDER before the command"
            raise self.refusal(path, target, why) from error
        if not isclass(cls):
            raise self.refusal(path, target, "which is not a class" if cls is not None else "which is not there")
        if not is_within(cls.__module__, (OWN, *self.allow)):
            home = cls.__module__
            raise self.refusal(path, target, f"which is {home}.{name}. If you trust that class, add allow=[{home}]")
        if not issubclass(cls, kind):
            raise self.refusal(path, target, f"which is not a {kind.__name__}, and one belongs there")
        return cls

    def refusal(self, path: tuple[str, ...], target: object, why: str) -> ValueError:
        key = printable(".".join((*path, "_target_")))
        return ValueError(f"{self.origin} is refused, and nothing in it was run: {key} is {printable(target)}, {why}")


def is_within(module: str, names: Iterable[str]) -> bool:
    """Whether a module is one of `names`, or below it."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """The types of a constructor's arguments."""
    try:
        return get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # of names that only a type checker imports
        return {}


def hint_of(cls: type, argument: str) -> Any:
    """The type of one argument of a constructor, which may be one of its `**arguments`; None if it has none such."""
    parameters = signature(cls.__init__).parameters.values()  # type: ignore[misc]
    others = next((parameter.name for parameter in parameters if parameter.kind is Parameter.VAR_KEYWORD), None)
    hints = hints_of(cls)
    return hints.get(argument, hints.get(others or argument))


def classes_in(hint: Any) -> Iterator[type]:
    """The classes that a type is made of: of itself, of alternatives, of what is listed."""
    if get_origin(hint) is not None and not (get_origin(hint) is Union or isclass(get_origin(hint))):
        return
    if get_args(hint):
        for argument in get_args(hint):
            yield from classes_in(argument)
    elif isclass(hint) and hint is not Any and not getattr(hint, "_is_protocol", False):
        yield hint


def is_data(kind: type) -> bool:
    """Whether it is a type of plain values."""
    return kind.__module__ in ("builtins", "pathlib", "types")
