"""The networks of NVlabs/edm: what they are in our settings.

There a model is `EDMPrecond(**options)`, or another of four such classes, which join a network, what its output means
and its noise-level input. A configuration here is the options with that `class_name` among them.
"""

import math
from collections.abc import Mapping
from typing import Any

from diffusion_lit.interop.edm_weights import weights_from
from diffusion_lit.interop.multipliers import multipliers_of
from diffusion_lit.trust.plain import printable, read_as

__all__ = ["denoiser_settings", "network_settings", "weights_from"]

IMAGES: Mapping[str, Any] = {"img_resolution": int, "img_channels": int}
"""What must be given, and its type."""
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "SongUNet": {
        "label_dim": 0,
        "augment_dim": 0,
        "model_channels": 128,
        "channel_mult": [1, 2, 2, 2],
        "channel_mult_emb": 4,
        "num_blocks": 4,
        "attn_resolutions": [16],
        "dropout": 0.10,
        "embedding_type": "positional",
        "channel_mult_noise": 1,
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": [1, 1],
    },
    "DhariwalUNet": {
        "label_dim": 0,
        "augment_dim": 0,
        "model_channels": 192,
        "channel_mult": [1, 2, 3, 4],
        "channel_mult_emb": 4,
        "num_blocks": 3,
        "attn_resolutions": [32, 16, 8],
        "dropout": 0.10,
    },
}
"""The options of each network, as they are where a configuration does not say."""
PRECONDITIONERS: Mapping[str, Mapping[str, Any]] = {
    "EDMPrecond": {"sigma_min": 0.0, "sigma_max": math.inf, "sigma_data": 0.5, "model_type": "DhariwalUNet"},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5, "model_type": "SongUNet"},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000, "model_type": "DhariwalUNet"},
}
"""The same of what is around it."""
RUNNING: Mapping[str, Any] = {"use_fp16": False, "label_dropout": 0.0}
"""Options of how a model is run or trained, and not of what it is: here `precision=` and `label_dropout=`."""


def denoiser_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the whole model, by the names of `Denoiser`'s arguments: network, schedule, parameterization.

    Noise levels that only the published sampler has are those of its `generate.py`.

    Raises:
        ValueError: if an option is unknown, wrong or cannot be expressed; the message names it.
    """
    name, options = read(config)
    if name == "EDMPrecond":
        sigma_min, sigma_max = max(options["sigma_min"], 0.002), min(options["sigma_max"], 80.0)
        schedule = {"_target_": "diffusion_lit.schedule.EDMSchedule", "sigma_min": sigma_min, "sigma_max": sigma_max}
        schedule |= {"rho": 7.0}
        parameterization = {"_target_": "diffusion_lit.parameterization.EDMParameterization"}
        parameterization |= {"sigma_data": options["sigma_data"]}
        return {"network": network_settings(config), "schedule": schedule, "parameterization": parameterization}
    refuse(options, "M", (1000,), "its networks receive the time as 0..999 here")
    if name == "VPPrecond":
        schedule = {"_target_": "diffusion_lit.schedule.VPSchedule", "beta_min": options["beta_min"]}
        schedule |= {"beta_max": options["beta_min"] + options["beta_d"]}
    else:
        schedule = {"_target_": "diffusion_lit.schedule.CosineSchedule", "num_timesteps": 1000, "s": options["C_2"]}
        schedule |= {"clip_min": 1e-12, "clip_max": 1 - options["C_1"]}
    parameterization = {"_target_": "diffusion_lit.parameterization.EpsParameterization"}
    return {"network": network_settings(config), "schedule": schedule, "parameterization": parameterization}


def network_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the network alone, with its `_target_`.

    Raises:
        ValueError: as `denoiser_settings`.
    """
    name, options = read(config)
    settings = {
        "_target_": f"diffusion_lit.model.{'SongUNet' if options['model_type'] == 'SongUNet' else 'UNet'}",
        "resolution": options["img_resolution"],
        "image_channels": options["img_channels"],
        "channels": options["model_channels"],
        "channel_multipliers": options["channel_mult"],
        "num_res_blocks": options["num_blocks"],
        "attention_resolutions": options["attn_resolutions"],
        "head_channels": None,
        "num_groups": 32,
        "dropout": options["dropout"],
        "num_classes": options["label_dim"] or None,
        "augmentation_dim": options["augment_dim"],
        "learn_variance": name == "iDDPMPrecond",
    }
    refuse(options, "channel_mult_emb", (4,), "the embedding is four times as wide as the first level")
    if options["model_type"] == "DhariwalUNet":
        return adm_settings(settings)
    fourier = options["embedding_type"] == "fourier"
    refuse(options, "embedding_type", ("positional", "fourier"), "there are no others")
    refuse(options, "channel_mult_noise", (2 if fourier else 1,), "a random frequency has a sine and a cosine each")
    refuse(options, "encoder_type", ("standard", "residual"), "no published model of theirs has another")
    refuse(options, "decoder_type", ("standard",), "no published model of theirs has another")
    return settings | {
        "noise_embedding": options["embedding_type"],
        "resample_filter": options["resample_filter"],
        "pyramid": options["encoder_type"] == "residual",
    }


def adm_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ADM's network, which our U-Net is."""
    if settings["augmentation_dim"]:
        raise ValueError(
            f"augment_dim={settings['augmentation_dim']} of DhariwalUNet cannot be expressed: there the augment label "
            "joins the noise level before its layers, in our UNet after them. Their published model has augment_dim=0"
        )
    widths = [settings["channels"] * multiplier for multiplier in settings["channel_multipliers"]]
    if settings["channels"] < 128 or any(width % 64 for width in widths):
        raise ValueError(
            f"DhariwalUNet of widths {widths} cannot be expressed: under 128 channels it has fewer groups, and where "
            "64 does not divide them its attention has heads of other sizes than 64"
        )
    width, channels = widths[0], settings["channels"]  # of the first layer, and of the time's sines and cosines
    settings = {**settings, "channels": width, "channel_multipliers": multipliers_of(widths)}
    settings |= {"time_channels": channels} if width != channels else {}
    return {**settings, "head_channels": 64, "time_conditioning": "scale_shift", "resampling": "residual"}


def read(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The preconditioner's name, and all options, checked by name and type."""
    name = str(config.get("class_name")).rpartition(".")[2]
    if name == "VEPrecond":
        raise ValueError(
            "class_name=VEPrecond cannot be expressed: its network gets x_t without a scale, and log(sigma / 2) for "
            "the noise level. EDM's own models of NCSN++ have EDMPrecond, and can be"
        )
    if name not in PRECONDITIONERS:
        raise ValueError(
            f"class_name={printable(name)} is none of {', '.join(PRECONDITIONERS)}: not a model of NVlabs/edm"
        )
    model_type = config.get("model_type", PRECONDITIONERS[name]["model_type"])
    if model_type not in NETWORKS:
        raise ValueError(f"model_type={printable(model_type)} is none of {', '.join(NETWORKS)}")
    options = {**RUNNING, **PRECONDITIONERS[name], **NETWORKS[model_type]}
    types = {**IMAGES, **{option: type_of(default) for option, default in options.items()}}
    for option, value in config.items():
        if option != "class_name" and option not in types:
            raise ValueError(f"{printable(option)}={printable(value)} is not an option of {name} with {model_type}")
    for option, kind in types.items():
        value = config.get(option, options.get(option))
        no_limit = option == "sigma_max" and value == math.inf
        options[option] = value if no_limit else read_as(kind, value, option)
    return name, options


def type_of(default: Any) -> Any:
    return list[float] if default == [1, 1] else list[int] if isinstance(default, list) else type(default)


def refuse(options: Mapping[str, Any], name: str, known: tuple[Any, ...], why: str) -> None:
    """Raise a ValueError if an option that is there has none of the values that can be expressed."""
    if options[name] not in known:
        allowed = " or ".join(map(str, known))
        raise ValueError(
            f"{name}={printable(options[name])} of {options['model_type']} cannot be expressed, only {allowed}: {why}"
        )
