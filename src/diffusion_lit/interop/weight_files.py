"""The files of a network's weights in a folder of diffusers: one, or, of more than 10 GB, several with an index."""

from pathlib import Path

from torch import Tensor

from diffusion_lit.interop.foreign import read_settings, read_state
from diffusion_lit.trust.plain import printable, read_as

__all__ = ["WEIGHTS", "read_weights", "weight_files"]

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def weight_files(folder: Path) -> list[Path]:
    """The files that a network's weights are read from, safetensors before torch's; of several, their index last.

    Raises:
        FileNotFoundError: if there are none, or one that the index names is missing.
        ValueError: if the weights are there twice, or the index is damaged or names a file elsewhere.
    """
    for file in (folder / name for name in WEIGHTS):
        index = index_of(file)
        if file.is_file() and index.is_file():
            raise ValueError(f"{folder} has {file.name} and, in several files, {index.name}: take out one of the two")
        if file.is_file():
            return [file]
        if index.is_file():
            return [*names_by_file(index), index]
    others = sorted(folder.glob("diffusion_pytorch_model*"))
    said = f"; {others[0].name} is of another kind: write it with save_pretrained" if others else ""
    raise FileNotFoundError(f"{folder} has no {WEIGHTS[0]}{said}")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a network, by their names.

    Raises:
        FileNotFoundError: as `weight_files`.
        ValueError: likewise, or if a file is damaged, or does not hold what the index says.
    """
    *files, last = weight_files(folder)
    if not files:
        return read_state(last)
    state: dict[str, Tensor] = {}
    for file, names in names_by_file(last).items():
        part = read_state(file)
        for differing, verb in ((names - part.keys(), "lacks"), (part.keys() - names, "has")):
            if differing:
                raise ValueError(f"{file} {verb} {printable(min(differing))}, and {last.name} says otherwise")
        state |= part
    return state


def index_of(file: Path) -> Path:
    """Where it is written which weights are in which file, if they are not all in `file`."""
    return file.with_name(f"{file.name}.index.json")


def names_by_file(index: Path) -> dict[Path, set[str]]:
    """The files that an index names, all of them there, and the names of the weights in each."""
    ending = Path(index.name.removesuffix(".index.json")).suffix
    table = read_as(dict[str, str], read_settings(index).get("weight_map"), f"{index}: weight_map")
    names: dict[Path, set[str]] = {}
    for weight, name in sorted(table.items()):
        if Path(name).name != name or not name.endswith(ending):
            raise ValueError(
                f"{index}: {printable(name)} is not the name of a {ending} file beside it, and no other is read"
            )
        names.setdefault(index.with_name(name), set()).add(weight)
    for file, weights in names.items():
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing, with {len(weights)} weights by {index.name}, such as {printable(min(weights))}"
            )
    if not names:
        raise ValueError(f"{index}: weight_map names no file")
    return names
