"""Many images from a trained model, batch by batch, each the same whatever it is drawn together with."""

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from diffusion_lit.command_line.mistake import out_of_memory
from diffusion_lit.generate import Setup, sampled, walk_size
from diffusion_lit.labels import Labels

__all__ = ["draw"]

log = logging.getLogger(__name__)


def draw(
    setup: Setup,
    indices: Sequence[int],
    labels: Labels | None,
    seed: int,
    batch_size: int,
    interpolate: int | None = None,
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Images and their indices, a batch at a time, uint8 [B, C, H, W] on the CPU; nothing of earlier ones is kept.

    All walks have the same number of images: the last one is filled up, and what fills it is thrown away. For kernels
    choose their order of summation by a batch's size. So on a CPU an image is the same to the bit for any `batch_size`,
    beside any other images, in any number of processes; on a GPU for the same `batch_size`, for another up to rounding.

    A batch that does not fit into memory is halved, as often as it takes, and what fits is said.

    Args:
        setup: the model and how to sample.
        indices: which images; of several processes, this one's.
        labels: image i is of the class `labels[i]`; None where the model has no classes.
        seed: of all the noise.
        batch_size: images at a time on a GPU (see `walk_size`).
        interpolate, on_step: as `generate` takes them; a batch that did not fit was counted too.

    Raises:
        ValueError: if there is no memory for a single image, or the model gives what is not a number.
    """
    size = fitting = walk_size(setup.device, batch_size)
    first = 0
    while first < len(indices):
        batch = list(indices[first : first + fitting])
        walk = batch + batch[-1:] * (fitting - len(batch))
        try:
            with torch.inference_mode():
                settings = (labels, seed, setup.device, interpolate, on_step)
                x_0 = sampled(setup.denoiser, setup.sampler, walk, *settings)
                check_finite(x_0, walk)
                images = setup.denoiser.space.decode(x_0)[: len(batch)].cpu()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if fitting == 1:
                raise ValueError(
                    f"there is not enough memory on {setup.device} to draw one image: use precision=bf16-mixed, "
                    "another device, or end what else uses it"
                ) from error
            fitting //= 2
            if torch.device(setup.device).type == "cuda":
                torch.cuda.empty_cache()
            continue
        if fitting < size:
            log.warning("the memory of %s holds %d images at a time, and not %d", setup.device, fitting, size)
            size = fitting
        yield batch, images
        first += len(batch)


def check_finite(x_0: Tensor, indices: Sequence[int]) -> None:
    """Raise a ValueError, which names the first such image, if any is not finite: as bytes they would be black."""
    if len(broken := (~x_0.isfinite().flatten(1).all(1)).nonzero()):
        raise ValueError(
            f"image {indices[int(broken[0])]} is not finite (NaN or infinity): the model's weights are damaged, or its "
            "numbers too large for its precision. Try precision=32-true, weights=raw, or an earlier checkpoint"
        )
