"""Images that a callback draws in the middle of training: shown as they proceed, and interrupted by signals."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from torch import Tensor

from diffusion_lit.callback.last_checkpoint import answer_signals
from diffusion_lit.sampler import Sampler
from diffusion_lit.terminal.progress import progress

__all__ = ["drawing"]

OnStep = Callable[[Tensor, Tensor], None]


@contextmanager
def drawing(trainer: Trainer, name: str, num_images: int, sampler: Sampler) -> Iterator[OnStep]:
    """Show that images are being drawn; what it gives is to be called after each of the sampler's steps, on all ranks.

    Args:
        trainer: whose ranks draw as many images each.
        name: what they are for.
        num_images: how many, over all ranks.
        sampler: one without a number of steps shows no more than its name.
    """
    share = trainer.world_size / getattr(sampler, "num_steps", math.inf)  # of an image, a step
    with progress(name, num_images, "images") as work:

        def on_step(s: Tensor, x_s: Tensor) -> None:
            answer_signals(trainer)
            work.advance(len(x_s) * share)

        yield on_step
