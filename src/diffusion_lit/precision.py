"""In which arithmetic a trained network runs. Schedule and sampler stay in float32 or better."""

import torch

from diffusion_lit.denoiser import Denoiser

__all__ = ["check_precision", "compile_network", "run_network_in"]

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
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compile_network(denoiser: Denoiser) -> None:
    """Compile the network of `denoiser`, which is changed; each new size of a batch takes a while at its first call.

    Raises:
        ValueError: if torch cannot compile here.
    """
    network, parameter = denoiser.network, next(denoiser.network.parameters())
    network.compile()
    x = torch.zeros(2, *denoiser.image_shape, device=parameter.device)
    try:
        with torch.inference_mode():
            denoiser(x, torch.ones(2, 1, 1, 1, device=parameter.device))
    except Exception as error:  # a missing compiler, an operation it does not know: anything
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"compile=true: torch cannot compile this network here ({reason}); use compile=false"
        ) from error
