"""The networks of NVlabs/edm2: what they are called there and here.

There a network is `Precond(**config)`. Their files are pickles, which are not read here: a script that is run there
rewrites one as a safetensors file, with `config` and the class's name in its metadata.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.trust.plain import printable, read_as

__all__ = ["denoiser_settings", "network_settings", "weights_from"]

CLASS = "Precond"

DEFAULTS: Mapping[str, Any] = {
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "num_blocks": 3,
    "attn_resolutions": [16, 8],
    "channels_per_head": 64,
    "dropout": 0.0,
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256.0,
}
"""Defaults of `Precond`, `UNet` and `Block`, of the options that we have too."""
ONLY: Mapping[str, Any] = {"channel_mult_noise": None, "channel_mult_emb": None, "resample_filter": [1, 1]}
"""Options that we do not have, and the one value at which they need not be had."""
REQUIRED = ("img_resolution", "img_channels", "label_dim")
ELSEWHERE = ("class_name", "use_fp16", "sigma_data", "logvar_channels")
"""Options that are not the network's: of precision, parameterization and loss."""


def network_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `EDM2UNet` that are the network of `Precond(**config)`.

    Raises:
        ValueError: if an option is missing, unknown or cannot be expressed; the message names it.
    """
    for name in REQUIRED:
        if type(config.get(name)) is not int:
            raise ValueError(f"an EDM2 network's configuration must have a whole number {name}, got {config.get(name)}")
    for name, value in config.items():
        if name not in (*DEFAULTS, *ONLY, *ELSEWHERE, *REQUIRED):
            raise ValueError(f"{printable(name)}={printable(value)} is not an option of EDM2's networks")
        if name in DEFAULTS and value != DEFAULTS[name] and not (name == "clip_act" and value is None):
            read_as(list[int] if isinstance(DEFAULTS[name], list) else type(DEFAULTS[name]), value, name)
        if name in ONLY and value != ONLY[name]:
            raise ValueError(
                f"an EDM2 network with {name}={value} cannot be expressed: only {ONLY[name]}, as published"
            )
    own = {**DEFAULTS, **config}
    widths = [own["model_channels"] * multiplier for multiplier in own["channel_mult"]]
    if any(width % own["channels_per_head"] for width in widths):  # there the heads are rounded down, and grow
        raise ValueError(
            f"an EDM2 network of widths {widths} with channels_per_head={own['channels_per_head']}, which does not "
            "divide them, cannot be expressed"
        )
    return {
        "_target_": "diffusion_lit.model.EDM2UNet",
        "resolution": own["img_resolution"],
        "image_channels": own["img_channels"],
        "channels": own["model_channels"],
        "channel_multipliers": list(own["channel_mult"]),
        "num_res_blocks": own["num_blocks"],
        "attention_resolutions": list(own["attn_resolutions"]),
        "head_channels": own["channels_per_head"],
        "dropout": float(own["dropout"]),
        "label_balance": own["label_balance"],
        "concat_balance": own["concat_balance"],
        "residual_balance": own["res_balance"],
        "attention_balance": own["attn_balance"],
        "clip": own["clip_act"],
        "num_classes": own["label_dim"] or None,
    }


def denoiser_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the whole `Precond(**config)`, by the names of `Denoiser`'s arguments; errors as above.

    The noise levels are those of their sampler, `generate_images.py`: the network itself knows no bounds.
    """
    sigma_data = config.get("sigma_data", 0.5)
    if not isinstance(sigma_data, int | float) or not math.isfinite(sigma_data) or sigma_data <= 0:
        raise ValueError(f"sigma_data of an EDM2 network must be a positive number, got {sigma_data}")
    return {
        "network": network_settings(config),
        "schedule": {"_target_": "diffusion_lit.schedule.EDMSchedule", "sigma_min": 0.002, "sigma_max": 80, "rho": 7},
        "parameterization": {
            "_target_": "diffusion_lit.parameterization.EDMParameterization",
            "sigma_data": float(sigma_data),
        },
    }


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of `Precond.state_dict()` by our network's names, float32.

    What `Precond` knows of the loss's uncertainty (`logvar_...`) is not part of the network, and is left out.

    Raises:
        ValueError: if a weight is missing, or there is one that the network has no place for.
    """
    given = {name: w for name, w in state.items() if not name.startswith("logvar_")}
    weights = {}
    for theirs, ours in names(settings):
        if theirs not in given:
            raise ValueError(f"the EDM2 network's weights lack {theirs}: they are of another configuration, or cut")
        w = given.pop(theirs).to(torch.float32)
        weights[ours] = w.reshape(1) if w.dim() == 0 else w  # gains
    if given:
        raise ValueError(f"the EDM2 network's weights have {next(iter(given))}, of another configuration")
    return weights


def names(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each weight's name there, and here."""
    outer = {
        "out_gain": "gain",
        "emb_fourier.freqs": "features.frequencies",
        "emb_fourier.phases": "features.phases",
        "emb_noise.weight": "noise.weight",
        f"enc.{square(settings, 0)}_conv.weight": "first.weight",
        "out_conv.weight": "last.weight",
    }
    if settings["num_classes"] is not None:
        outer["emb_label.weight"] = "label.weight"
    yield from ((f"unet.{theirs}", ours) for theirs, ours in outer.items())
    for theirs, ours, c_in, c_out, attends in blocks(settings):
        layers = {"emb_gain": "gain", "conv_res0.weight": "conv_1.weight", "emb_linear.weight": "emb.weight"}
        layers["conv_res1.weight"] = "conv_2.weight"
        if c_in != c_out:
            layers["conv_skip.weight"] = "skip.weight"
        if attends:
            layers |= {"attn_qkv.weight": "attention.qkv.weight", "attn_proj.weight": "attention.out.weight"}
        yield from ((f"unet.{theirs}.{a}", f"{ours}.{b}") for a, b in layers.items())


def blocks(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, int, int, bool]]:
    """Each block's name there and here, its channels in and out, and whether it has attention."""
    widths = [settings["channels"] * multiplier for multiplier in settings["channel_multipliers"]]
    count, last = settings["num_res_blocks"], len(widths) - 1
    c, skips, place = widths[0], [widths[0]], 0
    for level, width in enumerate(widths):
        size, attends = square(settings, level), attends_at(settings, level)
        around = [(f"{size}_down", c, c, False)] if level > 0 else []
        inner = [(f"{size}_block{i}", c if i == 0 else width, width, attends) for i in range(count)]
        for name, c_in, c_out, has_attention in (*around, *inner):
            yield f"enc.{name}", f"down.{place}", c_in, c_out, has_attention
            c, place = c_out, place + 1
            skips.append(c_out)
    place = 0
    for level in range(last, -1, -1):
        size, attends = square(settings, level), attends_at(settings, level)
        around = [(f"{size}_up", c, c, False)]
        if level == last:
            around = [(f"{size}_in0", c, c, True), (f"{size}_in1", c, c, False)]
        for name, c_in, c_out, has_attention in around:
            yield f"dec.{name}", f"up.{place}", c_in, c_out, has_attention
            place += 1
        for i in range(count + 1):
            yield f"dec.{size}_block{i}", f"up.{place}", c + skips.pop(), widths[level], attends
            c, place = widths[level], place + 1


def square(settings: Mapping[str, Any], level: int) -> str:
    size = settings["resolution"] >> level
    return f"{size}x{size}"


def attends_at(settings: Mapping[str, Any], level: int) -> bool:
    return settings["resolution"] >> level in settings["attention_resolutions"]
