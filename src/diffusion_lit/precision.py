"""In which arithmetic a trained network runs. Schedule and sampler stay in float32 or better."""

import logging
from collections.abc import Iterable

import torch

from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import BaseDenoiser, Denoiser
from diffusion_lit.execution import not_compiled
from diffusion_lit.out_of_memory import is_out_of_memory

__all__ = ["check_precision", "compile_networks", "run_network_in"]

log = logging.getLogger(__name__)

DTYPES = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
    "16-true": torch.float16,
}
"""By Lightning's names. Mixed and true differ in what an optimizer updates, and there is none."""
SHORT = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Older names of Lightning's."""


def check_precision(precision: object) -> str:
    """Its full name; a ValueError if there is no such precision."""
    name = SHORT.get(str(precision), str(precision))
    if name not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, or null for the run's own; got {precision}")
    return name


def run_network_in(denoiser: Denoiser, precision: str) -> None:
    """Let the network of `denoiser`, and it alone, run in a precision.

    Its weights are rounded once, where autocast would round them in every layer of every step. Images lie in memory
    with their channels last, for which convolutions are fastest on CPUs and in half precision.

    Args:
        denoiser: the model, on its device; it is changed.
        precision: as `check_precision` gives it.
    """
    dtype, network = DTYPES[precision], denoiser.network
    network.to(dtype)
    if dtype.itemsize == 2 or next(network.parameters()).device.type == "cpu":
        network.to(memory_format=torch.channels_last)


def compile_networks(networks: Iterable[Denoiser], denoiser: BaseDenoiser, size: int, device: str) -> None:
    """Compile the networks of some denoisers, which are changed.

    That a batch does not fit into memory is left to what draws it, and then makes it smaller.

    Args:
        networks: the model, and what guides it.
        denoiser: both together, which are tried out with a batch of `size` images.
        size, device: of the batches that are to come, and where.

    Raises:
        ValueError: if torch cannot compile here.
    """
    log.info("compiling the network, which takes a minute or more")
    for part in networks:
        part.network.compile()
    label = None if denoiser.num_classes is None else torch.zeros(size, dtype=torch.long, device=device)
    x, t = torch.zeros(size, *denoiser.image_shape, device=device), torch.ones(size, 1, 1, 1, device=device)
    try:
        with torch.inference_mode():
            denoiser(x, t, Condition(label))
    except Exception as error:  # a missing compiler, an operation it does not know: anything
        if not is_out_of_memory(error):
            raise not_compiled("compile", error) from error
