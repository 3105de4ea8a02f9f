"""Files of tensors, read without running anything that is in them."""

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch

from diffusion_lit.out_of_memory import is_out_of_memory

__all__ = ["broken_checksum", "load_tensors"]


def load_tensors(
    file: Path,
    otherwise: str = "is not a checkpoint, or is damaged",
    mmap: bool = False,
    known: Sequence[type] = (),
) -> Any:
    """What `torch.save` has written to `file`: tensors, plain values and containers of them, in memory.

    Args:
        file: the file.
        otherwise: what is said of a file that cannot be read, and what to do.
        mmap: leave the tensors on the disk until they are used.
        known: classes that may be in it beside tensors, and do nothing when they are made and given attributes.

    Raises:
        ValueError: if it is not such a file, is damaged, or is a pickle of anything else.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(known)):
            warnings.simplefilter("ignore")  # torch's, on the protocol of a pickle that it then refuses
            return torch.load(file, map_location="cpu", weights_only=True, mmap=(mmap and is_zipfile(file)) or None)
    except Exception as error:  # damaged bytes raise nearly anything
        if is_out_of_memory(error):
            raise
        [reason, *_] = str(error).splitlines() or [""]
        if isinstance(error, pickle.UnpicklingError):
            name = re.search(r"GLOBAL ([\w.]+)", str(error))
            if name is not None:
                raise ValueError(
                    f"{file} is refused, and nothing in it was run: beside tensors it names {name[1]}, and loading "
                    "that could run any program. Such a file must hold tensors and plain values alone"
                ) from error
            reason = "it holds what is neither a tensor nor a plain value"
        elif "weights_only" in reason:  # torch's advice to load it all the same
            reason = "it is a program, or of an old format, neither of which is read"
        raise ValueError(f"{file} {otherwise} ({reason or type(error).__name__})") from error


def broken_checksum(file: Path) -> str | None:
    """Which part of a file of `torch.save` does not have its checksum, in a sentence, or None.

    torch itself reads a flipped bit as a weight.
    """
    try:
        with ZipFile(file) as archive:
            bad = archive.testzip()
    except MemoryError:
        raise
    except Exception as error:  # what reading bytes as an archive can end in
        bad = str(error) or type(error).__name__
    return None if bad is None else f"{file} is damaged: the checksum of {bad} is not what was written"
