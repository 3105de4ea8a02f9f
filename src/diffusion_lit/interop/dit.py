"""The public DiT (facebookresearch/DiT): flags of its scripts, and its state dict, into settings and weights of ours.

Their learned variance has our order of channels and our meaning: the noise, then -1 for the small and 1 for the large
variance. Their row for the hidden label is our last row. What differs is the order of sines and cosines in the time's
embedding, and that their positions are stored.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_lit.interop import dit_weights as dit

__all__ = ["flags_of", "network_settings", "process_settings", "weights_from"]

WIDTHS = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
"""Size -> width, blocks, heads (Peebles & Xie 2023, table 1)."""
PATCH_SIZES = (2, 4, 8)
LATENT_CHANNELS, PIXELS_PER_LATENT = 4, 8
"""Of the autoencoder whose latents all of them are trained on."""
OTHER_FLAGS = {
    *("vae", "cfg_scale", "num_sampling_steps", "seed", "ckpt", "sample_dir", "per_proc_batch_size", "num_fid_samples"),
    *("data_path", "results_dir", "epochs", "global_batch_size", "global_seed", "num_workers", "log_every"),
    *("ckpt_every", "tf32"),
}
"""The flags of `sample.py`, `sample_ddp.py` and `train.py` that say nothing of network and process."""
OURS_TO_THEIRS = {
    "first": "x_embedder.proj",
    "time.layers.0": "t_embedder.mlp.0",
    "time.layers.2": "t_embedder.mlp.2",
    "label": "y_embedder.embedding_table",
    "layers.*.modulation": "blocks.*.adaLN_modulation.1",
    "layers.*.attention.qkv": "blocks.*.attn.qkv",
    "layers.*.attention.out": "blocks.*.attn.proj",
    "layers.*.mlp.0": "blocks.*.mlp.fc1",
    "layers.*.mlp.2": "blocks.*.mlp.fc2",
    "last.modulation": "final_layer.adaLN_modulation.1",
    "last.linear": "final_layer.linear",
}
"""Layers; a star is a block's number."""


def flags_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flags by their names in Python: without dashes before, and with _ within."""
    return {name.lstrip("-").replace("-", "_"): value for name, value in config.items()}


def network_settings(config: Mapping[str, Any], project: str = "DiT") -> dict[str, Any]:
    """The settings of our network for flags of their scripts.

    Args:
        config: flags by name, with - or _, as text or numbers; those that are missing have the scripts' defaults.
        project: whose name the models begin with: DiT, or SiT, whose networks are the same.

    Raises:
        ValueError: if a flag is unknown, or a value is not among theirs.
    """
    flags, defaults = flags_of(config), {"model": f"{project}-XL/2", "image_size": 256, "num_classes": 1000}
    if unknown := sorted(flags.keys() - defaults.keys() - OTHER_FLAGS):
        raise ValueError(f"{project}'s scripts have no flag {unknown[0]!r}; those of its network are {list(defaults)}")
    flags = defaults | flags
    models = {f"{project}-{size}/{patch}": (size, patch) for size in WIDTHS for patch in PATCH_SIZES}
    if flags["model"] not in models:
        raise ValueError(f"{project}'s scripts have no model={flags['model']!r}; they have {', '.join(models)}")
    numbers = {name: dit.whole_number(name, flags[name]) for name in ("image_size", "num_classes")}
    if numbers["image_size"] % PIXELS_PER_LATENT:
        raise ValueError(
            f"image_size={numbers['image_size']} is not a multiple of {PIXELS_PER_LATENT}, as latents need"
        )
    size, patch = models[flags["model"]]
    channels, depth, num_heads = WIDTHS[size]
    return dit.SETTINGS | {
        "resolution": numbers["image_size"] // PIXELS_PER_LATENT,
        "image_channels": LATENT_CHANNELS,
        "patch_size": patch,
        "channels": channels,
        "depth": depth,
        "num_heads": num_heads,
        "num_classes": numbers["num_classes"],
        "learn_variance": True,
    }


def process_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule and parameterization of all of their models, whatever the flags: the defaults of `create_diffusion`.

    The network's second half of channels is the variance: `sampler.variance=learned`, as their samplers have it.
    """
    return {
        "schedule": {
            "_target_": "diffusion_lit.schedule.LinearSchedule",
            "num_timesteps": 1000,
            "beta_min": 1e-4,
            "beta_max": 0.02,
        },
        "parameterization": {"_target_": "diffusion_lit.parameterization.EpsParameterization"},
    }


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their weights by the names of our network's, of `settings`.

    Raises:
        ValueError: if a weight is missing or not known, the positions are other ones, or hidden labels have no row.
    """
    settings = dit.SETTINGS | dict(settings)
    names = dict(dit.layer_names(OURS_TO_THEIRS, settings["depth"]))
    dit.check_names(state, names.values(), extra=["pos_embed"])
    if "pos_embed" in state:
        dit.check_positions("pos_embed", state["pos_embed"], settings)
    dit.check_label_rows(state[names["label.weight"]], settings["num_classes"])
    weights = {ours: state[theirs] for ours, theirs in names.items()}
    return weights | {dit.TIME_WEIGHT: dit.swap_sines_and_cosines(weights[dit.TIME_WEIGHT])}
