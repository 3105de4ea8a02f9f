"""diffusers' DiTTransformer2DModel, in and out: its configuration, and its state dict.

It differs from the public DiT in the frequencies of the time's embedding (`frequency_shift: 1`), in the norm before
each MLP (`mlp_norm_eps: 1e-5`, unless its `norm_eps` says otherwise), and in that each block has embeddings of its own,
all alike in files converted from the public ones. Its last layer uses those of the first block.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.interop import dit_weights as dit
from diffusion_lit.resolution import height_and_width

__all__ = ["config_from", "network_settings", "weights_from", "weights_to"]

CLASS = "DiTTransformer2DModel"
DEFAULTS: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "num_embeds_ada_norm": 1000,
    "norm_eps": 1e-5,
    "patch_size": 2,
    "sample_size": 32,
}
"""What a network of this kind can choose, and its class takes where the configuration does not say."""
FIXED: dict[str, Any] = {
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
"""What our network has in no other way."""
OF_OTHERS: dict[str, Any] = {
    "attention_type": "default",
    "caption_channels": None,
    "cross_attention_dim": None,
    "double_self_attention": False,
    "interpolation_scale": None,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "use_additional_conditions": None,
    "use_linear_projection": False,
}
"""Options of Transformer2DModel, by which name published files go, that leave it a DiT at these values."""
FREQUENCY_SHIFT = 1.0
OURS_TO_THEIRS = {
    "first": "pos_embed.proj",
    "layers.*.modulation": "transformer_blocks.*.norm1.linear",
    "layers.*.attention.out": "transformer_blocks.*.attn1.to_out.0",
    "layers.*.mlp.0": "transformer_blocks.*.ff.net.0.proj",
    "layers.*.mlp.2": "transformer_blocks.*.ff.net.2",
    "last.modulation": "proj_out_1",
    "last.linear": "proj_out_2",
}
EMBEDDINGS = {
    "time.layers.0": "transformer_blocks.*.norm1.emb.timestep_embedder.linear_1",
    "time.layers.2": "transformer_blocks.*.norm1.emb.timestep_embedder.linear_2",
    "label": "transformer_blocks.*.norm1.emb.class_embedder.embedding_table",
}
"""One layer of ours, and a copy in each block of theirs."""
FUSED = ".qkv."
PROJECTIONS = [{"layers.*.attention.qkv": f"transformer_blocks.*.attn1.to_{part}"} for part in "qkv"]
"""One layer of ours, and three of theirs."""


def network_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of our network for a `config.json` of theirs.

    Raises:
        ValueError: if an option is unknown, or has a value that our network has no way to express.
    """
    if config.get("_class_name", CLASS) not in (CLASS, "Transformer2DModel"):
        raise ValueError(f"the configuration describes {config['_class_name']}, not {CLASS}")
    options = {name: value for name, value in config.items() if not name.startswith("_")}
    for name, value in options.items():
        fixed = FIXED | OF_OTHERS
        if name in fixed and value != fixed[name]:
            raise ValueError(f"{name}={value!r} of {CLASS} cannot be expressed: our DiT has {fixed[name]!r} alone")
        if name not in fixed and name not in DEFAULTS:
            raise ValueError(f"{name}={value!r} is not an option of {CLASS} that is known here")
    options = DEFAULTS | options
    others = ("norm_eps", "out_channels")
    counts = {name: dit.whole_number(name, options[name]) for name in DEFAULTS if name not in others}
    channels_in, channels_out = counts["in_channels"], options["out_channels"]
    if channels_out not in (None, channels_in, 2 * channels_in):
        raise ValueError(
            f"out_channels={channels_out} cannot be expressed: our DiT has as many channels out as in "
            f"({channels_in}), or twice as many with a learned variance"
        )
    return dit.SETTINGS | {
        "resolution": counts["sample_size"],
        "image_channels": channels_in,
        "patch_size": counts["patch_size"],
        "channels": counts["num_attention_heads"] * counts["attention_head_dim"],
        "depth": counts["num_layers"],
        "num_heads": counts["num_attention_heads"],
        "num_classes": counts["num_embeds_ada_norm"],
        "learn_variance": channels_out == 2 * channels_in,
        "frequency_shift": FREQUENCY_SHIFT,
        "mlp_norm_eps": options["norm_eps"],
    }


def config_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of theirs for settings of our network, all of them: the inverse of `network_settings`.

    Raises:
        ValueError: if a setting has a value that theirs has no way to express.
    """
    settings = dit.SETTINGS | dict(settings)
    height, width = height_and_width(settings["resolution"])
    if height != width:
        raise ValueError(f"resolution={[height, width]} cannot be expressed: {CLASS} takes square images alone")
    if settings["num_classes"] is None:
        raise ValueError(f"num_classes=null cannot be expressed: {CLASS} has no network without classes")
    theirs = {name: dit.SETTINGS[name] for name in ("mlp_ratio", "augmentation_dim", "time_scale")}
    theirs["frequency_shift"] = FREQUENCY_SHIFT
    for name, value in theirs.items():
        if settings[name] != value:
            raise ValueError(
                f"{name}={settings[name]} cannot be expressed: {CLASS} has {value} alone. Train with "
                f"model.{name}={value} for a network that diffusers can load, or export in another format"
            )
    channels = settings["image_channels"]
    return {
        "_class_name": CLASS,
        **FIXED,
        "num_attention_heads": settings["num_heads"],
        "attention_head_dim": settings["channels"] // settings["num_heads"],
        "in_channels": channels,
        "out_channels": 2 * channels if settings["learn_variance"] else channels,
        "num_layers": settings["depth"],
        "num_embeds_ada_norm": settings["num_classes"],
        "norm_eps": settings["mlp_norm_eps"],
        "patch_size": settings["patch_size"],
        "sample_size": height,
    }


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their weights by the names of our network's, of `settings`.

    Raises:
        ValueError: if a weight is missing or not known, the positions are other ones, or blocks' embeddings differ.
    """
    settings = dit.SETTINGS | dict(settings)
    names = their_names(settings["depth"])
    dit.check_names(state, chain(*names.values()), extra=["pos_embed.pos_embed"])
    if "pos_embed.pos_embed" in state:  # files of older versions
        dit.check_positions("pos_embed.pos_embed", state["pos_embed.pos_embed"], settings)
    weights = {}
    for ours, theirs in names.items():
        weights[ours] = torch.cat([state[name] for name in theirs]) if FUSED in ours else state[theirs[0]]
        for name in theirs:
            if FUSED not in ours and not torch.equal(state[name], state[theirs[0]]):
                raise ValueError(
                    f"{name} differs from {theirs[0]}: our DiT has one embedding for all blocks, as the published "
                    "networks do, and a network that was trained on with one in each block cannot be expressed"
                )
    dit.check_label_rows(weights["label.weight"], settings["num_classes"])
    return weights | {dit.TIME_WEIGHT: dit.swap_sines_and_cosines(weights[dit.TIME_WEIGHT])}


def weights_to(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of our network by their names: the inverse of `weights_from`.

    Raises:
        ValueError: as `config_from`, or if the weights are not those of a network of `settings`.
    """
    config_from(settings)
    settings = dit.SETTINGS | dict(settings)
    names = their_names(settings["depth"])
    dit.check_names(state, names)
    state = {**state, dit.TIME_WEIGHT: dit.swap_sines_and_cosines(state[dit.TIME_WEIGHT])}
    weights: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        parts = state[ours].chunk(3) if FUSED in ours else [state[ours]] * len(theirs)
        weights |= {name: part.clone() for name, part in zip(theirs, parts, strict=True)}
    return weights


def their_names(depth: int) -> dict[str, list[str]]:
    """Each weight of ours, and what it is in theirs: one, a copy in each block, or queries, keys and values."""
    pairs = [pair for table in (OURS_TO_THEIRS, *PROJECTIONS) for pair in dit.layer_names(table, depth)]
    for i in range(depth):
        pairs += dit.layer_names({ours: theirs.replace("*", str(i)) for ours, theirs in EMBEDDINGS.items()}, depth=1)
    names: dict[str, list[str]] = {}
    for ours, theirs in pairs:
        names.setdefault(ours, []).append(theirs)
    return names
