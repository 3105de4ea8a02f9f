"""diffusers' UNet2DModel: its config.json as settings of our U-Net, its weights by our names, and back."""

from collections.abc import Mapping
from typing import Any

from diffusion_lit.interop.diffusers_unet_weights import attending, weights_from, weights_to
from diffusion_lit.interop.multipliers import multipliers_of
from diffusion_lit.model.level import widths_of
from diffusion_lit.resolution import height_and_width, shortest

__all__ = ["config_from", "network_settings", "weights_from", "weights_to"]

TARGET = "diffusion_lit.model.UNet"

DEFAULTS: Mapping[str, Any] = {
    **{"sample_size": None, "in_channels": 3, "out_channels": 3, "center_input_sample": False},
    **{"time_embedding_type": "positional", "time_embedding_dim": None, "freq_shift": 0, "flip_sin_to_cos": True},
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    **{"block_out_channels": (224, 448, 672, 896), "layers_per_block": 2, "mid_block_scale_factor": 1},
    **{"downsample_padding": 1, "downsample_type": "conv", "upsample_type": "conv", "dropout": 0.0, "act_fn": "silu"},
    **{"attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None, "norm_eps": 1e-5},
    **{"resnet_time_scale_shift": "default", "add_attention": True, "class_embed_type": None, "num_class_embeds": None},
    "num_train_timesteps": None,  # of a kind of time embedding that is not taken
}
"""What UNet2DModel takes where its config.json does not say."""

ONLY: Mapping[str, tuple[Any, ...]] = {
    **{"center_input_sample": (False,), "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",)},
    **{"mid_block_scale_factor": (1,), "act_fn": ("silu", "swish"), "add_attention": (True,)},
    **{"class_embed_type": (None,), "resnet_time_scale_shift": ("default", "scale_shift")},
    **{"downsample_padding": (1, 0), "downsample_type": ("conv", "resnet"), "upsample_type": ("conv", "resnet")},
}
"""Options of which our U-Net has these values alone."""

UNWRITTEN: Mapping[str, Any] = {
    **{"num_heads": None, "qkv_by_head": False, "norm_eps": 1e-5, "time_channels": None, "time_scale": 1.0},
    **{"frequency_shift": 0.0, "cosine_first": False, "null_class": True, "fold": 1},
}
"""What our settings mean that were written before these options were there."""


def network_settings(config: Mapping[str, Any], null_class: bool = False) -> dict[str, Any]:
    """Our U-Net's settings for a UNet2DModel.

    Args:
        config: its config.json.
        null_class: whether the last of its class embeddings is that of images without a class, as it is in files that
            `config_from` and `weights_to` made of such a network. diffusers itself knows no such class.

    Raises:
        ValueError: if the model is of another class, or has an option that our U-Net lacks.
    """
    if (name := config.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise ValueError(f"_class_name={name} is not taken here: this door is for UNet2DModel")
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        raise ValueError(f"{', '.join(unknown)}: UNet2DModel has no such option; remove it from config.json")
    c = {**DEFAULTS, **given}
    for option, allowed in ONLY.items():
        if c[option] not in allowed:
            raise refused(option, c[option], f"has {' or '.join(map(repr, allowed))}")
    widths, (attends, resampling) = list(c["block_out_channels"]), levels_of(c)
    if c["sample_size"] is None:
        raise refused("sample_size", None, "is of one size: write the images' height and width into config.json")
    if c["out_channels"] not in (c["in_channels"], 2 * c["in_channels"]):
        raise refused(
            "out_channels", c["out_channels"], f"has in_channels={c['in_channels']} of them, or twice as many"
        )
    if c["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise refused("time_embedding_dim", c["time_embedding_dim"], f"has four times its width, {4 * widths[0]}")
    scale_shift, groups = c["resnet_time_scale_shift"] == "scale_shift", c["norm_num_groups"]
    if c["attn_norm_num_groups"] not in ((groups,) if scale_shift else (None, groups)):
        raise refused("attn_norm_num_groups", c["attn_norm_num_groups"], f"has norm_num_groups={groups} in all norms")
    embeddings = c["num_class_embeds"]
    height, width = height_and_width(c["sample_size"])
    sizes = [min(height, width) // 2**i for i in range(len(widths))]
    return {
        "_target_": TARGET,
        "resolution": shortest(height, width),
        "image_channels": c["in_channels"],
        "channels": widths[0],
        "channel_multipliers": multipliers_of(widths),
        "num_res_blocks": c["layers_per_block"],
        "attention_resolutions": [size for size, here in zip(sizes, attends, strict=True) if here],
        "head_channels": c["attention_head_dim"],
        "num_heads": None,
        "qkv_by_head": False,
        "num_groups": groups,
        "norm_eps": c["norm_eps"],
        "dropout": c["dropout"],
        "time_conditioning": "scale_shift" if scale_shift else "additive",
        "time_channels": None,
        "time_scale": 1.0,
        "frequency_shift": c["freq_shift"],
        "cosine_first": c["flip_sin_to_cos"],
        "resampling": "conv_same" if resampling == "conv" and c["downsample_padding"] == 0 else resampling,
        "num_classes": None if embeddings is None else embeddings - null_class,
        "null_class": null_class or embeddings is None,
        "learn_variance": c["out_channels"] != c["in_channels"],
        **{"augmentation_dim": 0, "fold": 1},
    }


def config_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the UNet2DModel that computes what a U-Net of ours does.

    Where there is a `null_class`, its embedding is the last of `num_class_embeds`.

    Raises:
        ValueError: if UNet2DModel lacks something that the settings have.
    """
    s = {**UNWRITTEN, **settings}
    if s["_target_"] != TARGET:
        raise ValueError(f"{s['_target_']} is not {TARGET}: UNet2DModel cannot express it")
    channels, multipliers = s["channels"], s["channel_multipliers"]
    for option, expected in {"augmentation_dim": 0, "time_scale": 1, "time_channels": channels, "fold": 1}.items():
        if s[option] not in (expected, None):
            raise ValueError(f"UNet2DModel cannot express model.{option}={s[option]}: it has {expected} alone")
    if multipliers[0] != 1:
        raise ValueError(f"model.channel_multipliers={list(multipliers)} must begin with 1 for UNet2DModel")
    residual, groups, scale_shift = s["resampling"] == "residual", s["num_groups"], s["time_conditioning"] != "additive"
    attends = attending(s)
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if residual else ("DownBlock2D", "UpBlock2D")
    return {
        "_class_name": "UNet2DModel",
        "sample_size": s["resolution"] if isinstance(s["resolution"], int) else list(s["resolution"]),
        "in_channels": s["image_channels"],
        "out_channels": (2 if s["learn_variance"] else 1) * s["image_channels"],
        "freq_shift": s["frequency_shift"],
        "flip_sin_to_cos": s["cosine_first"],
        "down_block_types": ["AttnDownBlock2D" if here else plain[0] for here in attends],
        "up_block_types": ["AttnUpBlock2D" if here else plain[1] for here in reversed(attends)],
        "block_out_channels": widths_of(channels, multipliers, groups),
        "layers_per_block": s["num_res_blocks"],
        "downsample_padding": 0 if s["resampling"] == "conv_same" else 1,
        "downsample_type": "resnet" if residual else "conv",
        "upsample_type": "resnet" if residual else "conv",
        "dropout": s["dropout"],
        "act_fn": "silu",
        "attention_head_dim": head_channels(s, attends),
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups if scale_shift else None,
        "norm_eps": s["norm_eps"],
        "resnet_time_scale_shift": "scale_shift" if scale_shift else "default",
        "num_class_embeds": None if s["num_classes"] is None else s["num_classes"] + s["null_class"],
    }


def levels_of(c: Mapping[str, Any]) -> tuple[list[bool], str]:
    """Which levels attend, from the widest image on, and how all resample; a ValueError if levels differ."""
    kinds = {"conv": "conv", "resnet": "residual"}
    found: dict[str, list[tuple[bool, str]]] = {}
    for way, word in (("down", "Downsample"), ("up", "Upsample")):
        known = {
            f"{way.capitalize()}Block2D": (False, "conv"),
            f"Resnet{word}Block2D": (False, "residual"),
            f"Attn{way.capitalize()}Block2D": (True, kinds[c[f"{way}sample_type"]]),
        }
        types = [name.removeprefix("UNetRes") for name in c[f"{way}_block_types"]]
        if strange := [name for name in types if name not in known]:
            raise refused(f"{way}_block_types", strange[0], f"has {', '.join(known)}")
        if len(types) != len(c["block_out_channels"]):
            raise ValueError(
                f"{way}_block_types={types} must be as many as block_out_channels={c['block_out_channels']}"
            )
        found[way] = [known[name] for name in types]
    down, up = found["down"], found["up"]
    attends = [here for here, _ in down]
    if attends != [here for here, _ in reversed(up)]:
        raise refused(
            "up_block_types", c["up_block_types"], "attends at the same sizes on the way up as on the way down"
        )
    used = sorted({how for _, how in (*down[:-1], *up[:-1])})  # the last of either way does not resample
    if len(used) > 1:
        mixed = "down_block_types, up_block_types, downsample_type and upsample_type"
        raise ValueError(
            f"{mixed} of UNet2DModel name convolutions and residual blocks: our U-Net resamples by one kind"
        )
    return attends, used[0] if used else "conv"


def head_channels(s: Mapping[str, Any], attends: list[bool]) -> int | None:
    """attention_head_dim: one for all layers, None for single heads; a ValueError if layers differ."""
    if s["num_heads"] in (None, 1):
        return s["head_channels"]
    widths = widths_of(s["channels"], s["channel_multipliers"], s["num_groups"])
    levels = zip(widths, (*attends[:-1], True), strict=True)  # the middle always does
    sizes = sorted({width // s["num_heads"] for width, here in levels if here})
    if len(sizes) > 1:
        raise ValueError(
            f"model.num_heads={s['num_heads']} makes heads of {' and '.join(map(str, sizes))} channels here, and "
            "UNet2DModel has one attention_head_dim for all"
        )
    return sizes[0]


def refused(option: str, value: Any, ours: str) -> ValueError:
    return ValueError(f"{option}={value} of UNet2DModel cannot be expressed: our U-Net {ours}")
