"""Which reader knows a path: models in other forms than a run's checkpoint are found, and read, here."""

from pathlib import Path
from types import ModuleType

from diffusion_lit.interop import diffusers_folder, own, published, state_dict
from diffusion_lit.interop.foreign import Foreign

__all__ = ["files_of", "read_foreign"]

READERS: tuple[ModuleType, ...] = (own, diffusers_folder, published, state_dict)
"""Each has `files`, which says whether it knows a path, and `read`; the first that knows it reads it."""


def files_of(path: Path) -> list[Path] | None:
    """The files that a model is read from, that of its weights first; None of what none of the readers knows.

    Raises:
        FileNotFoundError: if a part is missing.
        ValueError: if a file is damaged, or of a kind that is not read.
    """
    return next((found for reader in READERS if (found := reader.files(path)) is not None), None)


def read_foreign(path: Path) -> Foreign | None:
    """The model that a path means; None of what none of the readers knows. Errors as `files_of`, and of what has no
    equal here."""
    reader = next((reader for reader in READERS if reader.files(path) is not None), None)
    return None if reader is None else reader.read(path)
