"""The same network in this project and in diffusers, and what they are run with: what other benchmarks compare.

The architecture is DDPM's for CIFAR-10 at a chosen width. `heads` is `equal`, a single head on both sides, or
`default`, what each project gives who asks for nothing: one head here, heads of 8 channels in diffusers.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.loss import MSELoss
from diffusion_lit.model import UNet
from diffusion_lit.parameterization import EpsParameterization
from diffusion_lit.schedule import LinearSchedule
from diffusion_lit.weighting import UnitWeighting

OURS, DIFFUSERS = "diffusion-lit", "diffusers"

GPU = torch.cuda.is_available()
"""Whether defaults are those of a GPU; a processor gets fewer images, and a few minutes for each part."""

Key = TypeVar("Key")
Loss = Callable[[Tensor], Tensor]
"""Images in [-1, 1] to what training minimises."""


def our_network(channels: int, resolution: int = 32) -> UNet:
    return UNet(resolution, 3, channels=channels, num_groups=min(32, channels))


def our_side(channels: int, resolution: int = 32) -> tuple[Denoiser, Loss]:
    denoiser = Denoiser(our_network(channels, resolution), LinearSchedule(), EpsParameterization())
    loss = MSELoss(UniformDensity(), UnitWeighting())
    return denoiser, lambda x_0: loss(denoiser, x_0).loss.mean()


def their_network(channels: int, resolution: int = 32, heads: str = "equal") -> UNet2DModel:
    own = {"attention_head_dim": None} if heads == "equal" else {}
    return UNet2DModel(
        sample_size=resolution,
        block_out_channels=(channels, 2 * channels, 2 * channels, 2 * channels),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        **own,
    )


def their_side(channels: int, resolution: int = 32, heads: str = "equal") -> tuple[UNet2DModel, Loss]:
    """As in diffusers' training example: DDPM's noise, mean squared error of eps."""
    network, scheduler = their_network(channels, resolution, heads), DDPMScheduler()

    def loss(x_0: Tensor) -> Tensor:
        eps, t = torch.randn_like(x_0), torch.randint(0, 1000, (len(x_0),), device=x_0.device)
        return F.mse_loss(network(scheduler.add_noise(x_0, eps, t), t).sample, eps)

    return network, loss


def cast(precision: str, device: str) -> AbstractContextManager[object]:
    """What a step runs in: `float32`, or `bfloat16` where autocast uses it."""
    return nullcontext() if precision == "float32" else torch.autocast(device, torch.bfloat16)


def multiplies_bfloat16() -> bool:
    """Whether a GPU or the processor does, as far as Linux says; others emulate it, fifty times as slowly."""
    facts = Path("/proc/cpuinfo")
    return GPU or (facts.is_file() and any(flag in facts.read_text() for flag in ("avx512_bf16", "amx_bf16")))


class Step:
    """A training step of one side, timed."""

    def __init__(self, module: nn.Module, loss: Loss, x_0: Tensor, precision: str = "float32") -> None:
        self.module, self.loss, self.x_0, self.precision = module.to(x_0.device).train(), loss, x_0, precision
        self.optimizer = torch.optim.AdamW(self.module.parameters(), 1e-4)

    def __call__(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with cast(self.precision, self.x_0.device.type):
            loss = self.loss(self.x_0)
        loss.backward()
        self.optimizer.step()
        if self.x_0.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def alternate(sides: Mapping[Key, Callable[[], float]], repeats: int, warm_up: int = 2) -> dict[Key, list[float]]:
    """Seconds of each side, which take turns, and begin in turn: all see the same machine."""
    times: dict[Key, list[float]] = {name: [] for name in sides}
    for number in range(-warm_up, repeats):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            seconds = sides[name]()
            if number >= 0:
                times[name].append(seconds)
    return times


def ratio(slow: list[float], fast: list[float]) -> str:
    """How many times as fast the second is: the median over rounds, and the middle half of them."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return f"{median(ratios):.2f} ({low:.2f} to {high:.2f})"


def command(
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    report: Callable[[argparse.Namespace], str],
) -> None:
    """What a benchmark does as a script: reads its arguments and prints its report."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    print(report(parser.parse_args()))


def table(head: list[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
