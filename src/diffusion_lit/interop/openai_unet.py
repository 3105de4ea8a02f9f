"""The networks of openai/improved-diffusion and openai/guided-diffusion: their scripts' flags and their weights."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_lit.interop.multipliers import multipliers_of
from diffusion_lit.interop.openai_flags import DEFAULTS, flags, process_settings

__all__ = ["flags", "network_settings", "process_settings", "weights_from"]

NUM_CLASSES = 1000
"""How many classes their scripts have where they have any."""

MULTIPLIERS: Mapping[int, tuple[float, ...]] = {
    32: (1, 2, 2, 2),  # improved-diffusion alone
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
"""Widths of the levels by size of image, where `channel_mult` does not say."""

LAYERS = {
    **{"in_layers.0": "norm_1", "in_layers.2": "conv_1", "emb_layers.1": "emb", "out_layers.0": "norm_2"},
    **{"out_layers.3": "conv_2", "skip_connection": "skip"},
    **{"norm": "norm", "qkv": "qkv", "proj_out": "out"},
    **{"op": "layer", "conv": "conv"},
}
"""Theirs and ours within a residual block, attention, and what resamples without one."""

BLOCKS = re.compile(r"((?P<way>input|output)_blocks\.(?P<number>\d+)|middle_block)\.(?P<place>\d+)\.(?P<layer>.+)")
"""A layer's name within the blocks."""

OUTER = {
    **{"time_embed.0": "time.layers.0", "time_embed.2": "time.layers.2", "label_emb": "label"},
    **{"input_blocks.0.0": "first", "out.0": "last.0", "out.2": "last.2"},
}
"""Theirs and ours before and after the blocks."""


def network_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our U-Net's settings for a network of either project.

    `use_fp16` and `use_checkpoint` change no weight, and are `trainer.precision` and a matter of memory here.

    Args:
        config: what `flags` gives.

    Raises:
        ValueError: if our U-Net cannot express it.
    """
    c = {**DEFAULTS, **config}
    size, channels, by_size = c["image_size"], c["num_channels"], c["num_head_channels"] != -1
    if not by_size and c["num_heads_upsample"] not in (-1, c["num_heads"]):
        raise ValueError(
            f"--num_heads_upsample {c['num_heads_upsample']} with --num_heads {c['num_heads']} cannot be expressed: "
            "our U-Net has as many heads on the way up as on the way down"
        )
    if not c["channel_mult"] and size not in MULTIPLIERS:
        raise ValueError(f"--image_size {size} needs a --channel_mult, as it does there; without one: {[*MULTIPLIERS]}")
    given = tuple(int(multiplier) for multiplier in c["channel_mult"].split(",") if multiplier)
    multipliers = given or MULTIPLIERS[size]
    width = int(multipliers[0] * channels)
    factors = [size // int(resolution) for resolution in c["attention_resolutions"].split(",")]
    return {
        "_target_": "diffusion_lit.model.UNet",
        "resolution": size,
        "image_channels": 3,
        "channels": width,
        "channel_multipliers": multipliers_of([int(multiplier * channels) for multiplier in multipliers]),
        "num_res_blocks": c["num_res_blocks"],
        "attention_resolutions": [size // factor for factor in factors if factor],
        "head_channels": c["num_head_channels"] if by_size else None,
        "num_heads": None if by_size else c["num_heads"],
        "qkv_by_head": not c["use_new_attention_order"],
        "num_groups": 32,
        "norm_eps": 1e-5,
        "dropout": c["dropout"],
        "time_conditioning": "scale_shift" if c["use_scale_shift_norm"] else "additive",
        "time_channels": None if width == channels else channels,
        "time_scale": 1000 / c["diffusion_steps"] if c["rescale_timesteps"] else 1.0,
        "frequency_shift": 0,
        "cosine_first": True,
        "resampling": "residual" if c["resblock_updown"] else "conv",
        "num_classes": NUM_CLASSES if c["class_cond"] else None,
        "null_class": not c["class_cond"],
        "augmentation_dim": 0,
        "learn_variance": c["learn_sigma"],
        "fold": 1,
    }


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of either project's network by our names.

    Raises:
        ValueError: if a weight has no place in our U-Net, or the settings are not those of such a network.
    """
    if not settings.get("cosine_first", False):
        raise ValueError(
            "model.cosine_first must be true for weights of these projects: their times begin with cosines"
        )
    found = {our_name(name): weight for name, weight in state.items()}
    for name, weight in found.items():
        if weight.ndim == 3:  # attention is over a row of pixels there
            found[name] = weight[..., None]
    return found


def our_name(name: str) -> str:
    """Our name of one of their weights; a ValueError if it is none of a U-Net's."""
    layer, _, part = name.rpartition(".")
    if layer in OUTER:
        return f"{OUTER[layer]}.{part}"
    match = BLOCKS.fullmatch(layer)
    if match is None or match["layer"] not in LAYERS:
        raise ValueError(f"{name} is not a weight of a U-Net of improved-diffusion or guided-diffusion")
    block = "middle"
    if match["way"]:
        number = int(match["number"])
        block = f"down.{number - 1}" if match["way"] == "input" else f"up.{number}"  # their input_blocks.0 is our first
    return f"{block}.{match['place']}.{LAYERS[match['layer']]}.{part}"
