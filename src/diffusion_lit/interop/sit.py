"""The public SiT (willisma/SiT): flags of its scripts, and its state dict, into settings and weights of ours.

Its network is DiT's, by the same names. Its time runs from noise, 0, to data, 1, and is given to the network as it is;
its output is data minus noise. Ours runs the other way, is given as 1000 t, and has noise minus data: the weights are
rewritten, so that this network, with `schedule=flow parameterization=velocity`, computes the same function.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.interop import dit
from diffusion_lit.interop.dit_weights import TIME_WEIGHT

__all__ = ["network_settings", "process_settings", "weights_from"]

PATH = {"path_type": "Linear", "prediction": "velocity"}
"""Flags that say what the network was trained on, and their only values that `schedule=flow` is."""
OTHER_FLAGS = {
    *("loss_weight", "sample_eps", "train_eps", "sampling_method", "atol", "rtol", "reverse", "likelihood"),
    *("diffusion_form", "diffusion_norm", "last_step", "last_step_size", "sample_every", "wandb"),
}
"""The flags of `sample.py`, `sample_ddp.py` and `train.py`, beside DiT's, that say nothing of network and process."""
TIME_SCALE = 1e-3
"""Makes 1000 t the t of their embedding."""
LAST = ("last.linear.weight", "last.linear.bias")


def network_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of our network for flags of their scripts.

    Args:
        config: flags by name, with - or _, as text or numbers; those that are missing have the scripts' defaults.

    Raises:
        ValueError: if a flag is unknown, or a value has no equal here.
    """
    flags = dit.flags_of(config)
    for name, value in PATH.items():
        if (given := flags.pop(name, value)) != value:
            raise ValueError(f"{name}={given!r} of SiT has no equal here: {value} alone is schedule=flow")
    others = {name: value for name, value in flags.items() if name not in OTHER_FLAGS}
    return dit.network_settings(others, "SiT") | {"learn_variance": False, "time_scale": TIME_SCALE}


def process_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule and parameterization of all of their models that `network_settings` takes."""
    return {
        "schedule": {"_target_": "diffusion_lit.schedule.FlowSchedule", "shift": 1.0},
        "parameterization": {"_target_": "diffusion_lit.parameterization.VelocityParameterization"},
    }


def weights_from(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their weights as our network of `settings` has them.

    Raises:
        ValueError: as for DiT's weights.
    """
    weights = dit.weights_from(state, settings)
    patch = settings["patch_size"] ** 2
    for name in LAST:  # with twice the channels, as published, the second half was never trained
        by_pixel = weights[name].reshape(patch, -1, *weights[name].shape[1:])
        weights[name] = -by_pixel[:, : settings["image_channels"]].flatten(0, 1)
    return weights | {TIME_WEIGHT: turned(weights[TIME_WEIGHT])}


def turned(weight: Tensor) -> Tensor:
    """The time's first layer, [D, sines and cosines], which is given t in place of 1 - t.

    With w the frequencies, sin(w (1 - t)) = sin w cos w t - cos w sin w t, and cos(w (1 - t)) likewise.
    """
    of_sine, of_cosine = weight.double().chunk(2, dim=1)
    n = of_sine.shape[1]
    w = torch.exp(-math.log(10_000) * torch.arange(n, dtype=torch.float64) / n)
    sine, cosine = of_cosine * w.sin() - of_sine * w.cos(), of_sine * w.sin() + of_cosine * w.cos()
    return torch.cat([sine, cosine], dim=1).to(weight.dtype)
