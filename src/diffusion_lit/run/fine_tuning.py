"""A new run that begins with an earlier one's weights."""

from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig

from diffusion_lit.checkpoint import choose_weights, load_checkpoint
from diffusion_lit.module import DiffusionModule
from diffusion_lit.run.settings import changes, under

__all__ = ["load_weights"]

PROCESS = ("schedule.", "parameterization.", "space.scale", "space.shift")
"""Settings that decide what the network's inputs and outputs mean."""


def load_weights(module: DiffusionModule, path: str | Path, weights: str, cfg: DictConfig) -> Iterator[str]:
    """Begin with an earlier run's weights, and nothing else of it.

    Args:
        module: whose weights are replaced.
        path: a run's folder, a checkpoint file, or a model in another form.
        weights: `ema`, another average's name, `raw`, or `power_LENGTH`.
        cfg: the new run's settings.

    Yields:
        What was done, and what these weights have to learn anew, for the log.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it lacks these weights, or is of another architecture.
    """
    checkpoint = load_checkpoint(path)
    given = choose_weights(checkpoint, weights, path, "init_weights")
    own = {name: w for name, w in module.state_dict().items() if name.startswith("denoiser.")}
    renewed = module.denoiser.network.class_parameters()
    new = [name for name, w in own.items() if name not in given or given[name].shape != w.shape]
    if wrong := [name for name in new if name.removeprefix("denoiser.network.") not in renewed]:
        listed = "".join(
            f"\n  {name}: {list(given[name].shape) if name in given else 'missing'} in the checkpoint, "
            f"{list(own[name].shape)} now"
            for name in wrong[:5]
        )
        raise ValueError(f"init={path} is of another architecture:{listed}\nUse its model, or start without init")
    with torch.no_grad():
        for name in own.keys() - set(new):
            own[name].copy_(given[name])
    classes = f"; new: {', '.join(new)}, since the classes are others" if new else ""
    of = f"step {checkpoint['global_step']}" if "kind" not in checkpoint else checkpoint["kind"]
    yield f"beginning with weights {weights} of {path} ({of}){classes}"
    for change in changes(checkpoint, cfg):
        if under(change.key, PROCESS):
            yield f"  {change} (the weights were trained with the first)"
