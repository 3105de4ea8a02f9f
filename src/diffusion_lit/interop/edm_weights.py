"""The weights of NVlabs/edm's networks by the names of ours."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["weights_from"]

LAYERS = {
    "norm0": "norm_1",
    "conv0": "conv_1",
    "affine": "emb",
    "norm1": "norm_2",
    "conv1": "conv_2",
    "skip": "skip",
}
"""What is in a block, there and here."""
ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "out"}
"""What is in its attention."""
DERIVED = ("resample_filter", "u")
"""Last parts of the names of tables that follow from the settings."""


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a whole model, `EDMPrecond.state_dict()` say, by the names of our network's, in float32.

    Args:
        state: theirs.
        settings: the network's, as `network_settings` gives them.

    Raises:
        ValueError: if there is a weight that a network of these settings has no place for.
    """
    is_adm = settings["_target_"].endswith(".UNet")
    layers = dict(adm_layers(settings) if is_adm else song_layers(settings))
    weights: dict[str, Tensor] = {}
    for name, given in state.items():
        layer, _, part = name.rpartition(".")
        if part in DERIVED:
            continue
        if layer.removeprefix("model.") not in layers and name.removeprefix("model.") not in layers:
            raise ValueError(
                f"the weights have {name}, which a network of this configuration does not: it is of another"
            )
        ours = layers.get(name.removeprefix("model.")) or f"{layers[layer.removeprefix('model.')]}.{part}"
        weights[ours] = moved(ours, given.float(), is_adm)
    return weights


def moved(ours: str, w: Tensor, is_adm: bool) -> Tensor:
    """A weight with its rows and columns in the order that ours has.

    Their attention interleaves queries, keys and values; their ADM begins an embedding with its cosines, and has no row
    for the hidden class, which adds nothing to it.
    """
    if ours.endswith(("qkv.weight", "qkv.bias")):
        return w.reshape(-1, 3, *w.shape[1:]).transpose(0, 1).flatten(0, 1)
    if is_adm and ours == "time.layers.0.weight":
        return torch.cat(w.chunk(2, dim=1)[::-1], dim=1)
    if is_adm and ours == "label.weight":
        return torch.cat([w.T, w.new_zeros(1, len(w))])
    return w.contiguous()


def squares(settings: Mapping[str, Any]) -> list[str]:
    """What they call the levels."""
    sizes = [settings["resolution"] >> level for level in range(len(settings["channel_multipliers"]))]
    return [f"{size}x{size}" for size in sizes]


def block(theirs: str, ours: str, attention: str) -> Iterator[tuple[str, str]]:
    """The layers of a block, of which it need not have all."""
    yield from ((f"{theirs}.{a}", f"{ours}.{b}") for a, b in LAYERS.items())
    yield from ((f"{theirs}.{a}", f"{attention}.{b}") for a, b in ATTENTION.items())


def song_block(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return block(theirs, ours, f"{ours}.attention")


def song_layers(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of each layer of DDPM++ and NCSN++, there and here."""
    levels, count = squares(settings), settings["num_res_blocks"]
    yield from {
        "map_noise.freqs": "noise.frequencies",
        "map_label": "label",
        "map_augment": "augmentation",
        "map_layer0": "embedding.0",
        "map_layer1": "embedding.2",
        f"enc.{levels[0]}_conv": "first",
        f"dec.{levels[0]}_aux_norm": "last.0",
        f"dec.{levels[0]}_aux_conv": "last.2",
    }.items()
    for i, level in enumerate(levels):
        if i > 0:
            yield from song_block(f"enc.{level}_down", f"reduce.{i - 1}")
            yield f"enc.{level}_aux_residual", f"pyramid.{i - 1}.0"
        for j in range(count):
            yield from song_block(f"enc.{level}_block{j}", f"down.{i}.{j}")
    for j in range(2):
        yield from song_block(f"dec.{levels[-1]}_in{j}", f"middle.{j}")
    for i, level in enumerate(reversed(levels)):
        if i > 0:
            yield from song_block(f"dec.{level}_up", f"enlarge.{i - 1}")
        for j in range(count + 1):
            yield from song_block(f"dec.{level}_block{j}", f"up.{i}.{j}")


def adm_layers(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of each layer of ADM, there and here."""
    levels, count = squares(settings), settings["num_res_blocks"]
    yield from {
        "map_layer0": "time.layers.0",
        "map_layer1": "time.layers.2",
        "map_label": "label",
        f"enc.{levels[0]}_conv": "first",
        "out_norm": "last.0",
        "out_conv": "last.2",
    }.items()
    place = 0
    for i, level in enumerate(levels):
        for theirs in [*(["down"] if i > 0 else []), *(f"block{j}" for j in range(count))]:
            yield from block(f"enc.{level}_{theirs}", f"down.{place}.0", f"down.{place}.1")
            place += 1
    yield from block(f"dec.{levels[-1]}_in0", "middle.0", "middle.1")
    yield from block(f"dec.{levels[-1]}_in1", "middle.2", "")
    place = 0
    for i, level in enumerate(reversed(levels)):
        if i > 0:  # after the last of the level below, and its attention
            attends = settings["resolution"] >> len(levels) - i in settings["attention_resolutions"]
            yield from block(f"dec.{level}_up", f"up.{place - 1}.{2 if attends else 1}", "")
        for j in range(count + 1):
            yield from block(f"dec.{level}_block{j}", f"up.{place}.0", f"up.{place}.1")
            place += 1
