"""Packages that only one feature needs: extras of this one."""

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module: str, extra: str, feature: str) -> ModuleType:
    """Import a package that not every installation has.

    Args:
        module: its name.
        extra: the extra of this package that brings it.
        feature: what needs it, to begin the message with.

    Raises:
        ValueError: with the command that installs it; and with what is wrong where it is there and cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        why = "" if missing else f" ({error})"
        raise ValueError(f"{feature} needs {module}: pip install 'diffusion-lit[{extra}]'{why}") from error
