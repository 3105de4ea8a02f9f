"""The weights of diffusers' UNet2DModel by the names of our U-Net, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.resolution import height_and_width

__all__ = ["attending", "weights_from", "weights_to"]

BLOCK = {
    **{"norm_1": "norm1", "conv_1": "conv1", "emb": "time_emb_proj"},
    **{"norm_2": "norm2", "conv_2": "conv2", "skip": "conv_shortcut"},
}
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How older files call the layers of attention."""


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """A UNet2DModel's weights by our names; a ValueError if some are missing, or have no place in our U-Net."""
    given = {modern(name): weight for name, weight in state.items()}
    found: dict[str, Tensor] = {}
    for ours, theirs in layers(settings):
        for part in ("weight", "bias"):
            names = [f"{layer}.{part}" for layer in theirs]
            if names[0] not in given and is_optional(ours, part):
                continue
            if missing := [name for name in names if name not in given]:
                raise ValueError(
                    f"{missing[0]} is missing: the weights are not those of a UNet2DModel with this config.json"
                )
            weights = [given.pop(name) for name in names]
            weight = by_heads(torch.cat(weights), settings, True) if len(names) > 1 else weights[0]
            found[f"{ours}.{part}"] = weight[:, :, None, None] if is_pointwise(ours, part) else weight
    if given:
        raise ValueError(f"{next(iter(given))} has no place in the network that config.json describes")
    return found


def weights_to(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our U-Net's weights as a UNet2DModel calls them: the inverse of `weights_from`."""
    given = dict(state)
    found: dict[str, Tensor] = {}
    for ours, theirs in layers(settings):
        for part in ("weight", "bias"):
            if (name := f"{ours}.{part}") not in given:
                if is_optional(ours, part):
                    continue
                raise ValueError(f"{name} is missing: the weights are not those of a U-Net with these settings")
            weight = given.pop(name)
            weight = weight[:, :, 0, 0] if is_pointwise(ours, part) else weight
            weights = by_heads(weight, settings, False).chunk(3) if len(theirs) > 1 else [weight]
            found |= {f"{layer}.{part}": w.clone() for layer, w in zip(theirs, weights, strict=True)}
    if given:
        raise ValueError(f"UNet2DModel has no layer for {', '.join(sorted(given))}")
    return found


def layers(settings: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each layer with weights: our name, and theirs; three of theirs for the projection of attention."""
    n, residual, attends = settings["num_res_blocks"], settings["resampling"] == "residual", attending(settings)
    top = len(attends) - 1

    def block(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
        yield from ((f"{ours}.{own}", [f"{theirs}.{their}"]) for own, their in BLOCK.items())

    def attention(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
        yield f"{ours}.norm", [f"{theirs}.group_norm"]
        yield f"{ours}.qkv", [f"{theirs}.to_{letter}" for letter in "qkv"]
        yield f"{ours}.out", [f"{theirs}.to_out.0"]

    def level(ours: str, theirs: str, j: int, attends_here: bool) -> Iterator[tuple[str, list[str]]]:
        yield from block(f"{ours}.0", f"{theirs}.resnets.{j}")
        yield from attention(f"{ours}.1", f"{theirs}.attentions.{j}") if attends_here else ()

    yield "first", ["conv_in"]
    yield "time.layers.0", ["time_embedding.linear_1"]
    yield "time.layers.2", ["time_embedding.linear_2"]
    if settings["num_classes"] is not None:
        yield "label", ["class_embedding"]
    for i in range(top + 1):
        for j in range(n):
            yield from level(f"down.{i * (n + 1) + j}", f"down_blocks.{i}", j, attends[i])
        if i < top:
            ours, theirs = f"down.{i * (n + 1) + n}.0", f"down_blocks.{i}.downsamplers.0"
            yield from block(ours, theirs) if residual else [(f"{ours}.layer", [f"{theirs}.conv"])]
    yield from block("middle.0", "mid_block.resnets.0")
    yield from attention("middle.1", "mid_block.attentions.0")
    yield from block("middle.2", "mid_block.resnets.1")
    for i in range(top + 1):
        here = attends[top - i]
        for j in range(n + 1):
            yield from level(f"up.{i * (n + 1) + j}", f"up_blocks.{i}", j, here)
        if i < top:
            ours, theirs = f"up.{i * (n + 1) + n}.{2 if here else 1}", f"up_blocks.{i}.upsamplers.0"
            yield from block(ours, theirs) if residual else [(f"{ours}.conv", [f"{theirs}.conv"])]
    yield "last.0", ["conv_norm_out"]
    yield "last.2", ["conv_out"]


def attending(settings: Mapping[str, Any]) -> list[bool]:
    """Whether each level has attention, from the widest image on."""
    shorter = min(height_and_width(settings["resolution"]))
    sizes = [shorter // 2**i for i in range(len(settings["channel_multipliers"]))]
    return [size in settings["attention_resolutions"] for size in sizes]


def modern(name: str) -> str:
    """Today's name of a weight: those of attention had others until diffusers 0.13."""
    *path, layer, part = name.split(".")
    return ".".join([*path, FORMER.get(layer, layer), part]) if "attentions" in path else name


def is_optional(ours: str, part: str) -> bool:
    """Whether a network may be without it: a block of equal widths has no `skip`, and an embedding no bias."""
    return ours.endswith(".skip") or (ours, part) == ("label", "bias")


def is_pointwise(ours: str, part: str) -> bool:
    """Whether it is the weight of a 1 x 1 convolution of ours that is a dense layer of theirs."""
    return part == "weight" and ours.endswith((".qkv", ".out"))


def by_heads(rows: Tensor, settings: Mapping[str, Any], ours: bool) -> Tensor:
    """The rows of a projection, [3 C, ...], in our order or in theirs, which differ where we have `qkv_by_head`."""
    if not settings.get("qkv_by_head", False):
        return rows
    channels = len(rows) // 3
    size, number = settings["head_channels"], settings.get("num_heads")
    heads = channels // size if size else number or 1
    first, second = (3, heads) if ours else (heads, 3)
    return rows.reshape(first, second, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)
