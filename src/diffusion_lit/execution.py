"""How a network is run in training. What it computes stays the same, to rounding."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion_lit.model import Network

__all__ = ["Execution", "not_compiled"]

log = logging.getLogger(__name__)

VARIANTS = 64
"""How many shapes of a kind of block are compiled; torch's own 8 are too few for the levels of a U-Net."""


@dataclass(frozen=True)
class Execution:
    """Ways to run a network that go together, and with every strategy and precision.

    Args:
        compile: compile the network's blocks, each by itself: a minute before the first step and not several, and
            whatever is between blocks stays as it is.
        gradient_checkpointing: keep the inputs of blocks alone for the backward pass, and compute what is within them
            again (Chen et al. 2016, arXiv:1604.06174): about a third more time, for a fraction of the memory.
        channels_last: let images lie in memory with their channels last, as the convolutions of most GPUs like them in
            half precision, and GroupNorm does not: on its own it is slower (docs/gpu.md).
    """

    compile: bool = False
    gradient_checkpointing: bool = False
    channels_last: bool = False

    def apply(self, network: Network, device: torch.device, sharded: bool = False) -> None:
        """Let `network` be run so, from now on. Its parameters keep their names and values.

        Args:
            network: it is changed.
            device: where it is to run.
            sharded: whether FSDP2 is to share out its parameters, whose channels then stay where they are.

        Raises:
            ValueError: if it does not say what its blocks are, or torch cannot compile for `device`.
        """
        blocks = list(network.blocks())
        by_block = ("compile", "gradient_checkpointing", *(("channels_last",) if sharded else ()))
        asked = [name for name in by_block if getattr(self, name)]
        if asked and not blocks:
            raise ValueError(
                f"execution.{asked[0]}=true works block by block, and {type(network).__name__} has none: let its "
                f"blocks() list them, or use execution.{asked[0]}=false"
            )
        if self.channels_last and not sharded:
            network.to(memory_format=torch.channels_last)
        elif self.channels_last:
            for block in blocks:
                block.register_forward_pre_hook(channels_at_the_end)
        if self.gradient_checkpointing:
            for block in blocks:
                recompute(block)
        if self.compile:
            log.info("trying the compiler; the first step then compiles the network's %d blocks", len(blocks))
            check_compiler(device)
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
            for block in blocks:
                block.compile(dynamic=False)  # sizes are fixed in training; kernels for any size are slower


def channels_at_the_end(block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The images that a block is given, as its convolutions then leave them; tokens as they are."""
    x, *rest = args
    return (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, *rest)


def recompute(block: nn.Module) -> None:
    """Let the backward pass of `block` compute it again, with the dropout that it had."""
    block.forward = partial(checkpointed, block.forward)


def checkpointed(forward: Callable[..., Any], *args: Any) -> Any:
    """A function of ours, which is what a compiler enters: torch's own `checkpoint` keeps it out."""
    return checkpoint(forward, *args, use_reentrant=False)


def check_compiler(device: torch.device) -> None:
    """Raise a ValueError if torch cannot compile for `device`: it takes a C++ compiler, on GPUs Triton."""
    try:
        torch.compile(torch.sin)(torch.ones(8, device=device))
    except Exception as error:  # a missing compiler, headers, Triton: anything
        raise not_compiled("execution.compile", error) from error


def not_compiled(key: str, error: Exception) -> ValueError:
    """That compiling, which the setting `key` asked for, ended in `error`."""
    [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
    return ValueError(f"{key}=true: torch cannot compile here ({reason}); use {key}=false")
