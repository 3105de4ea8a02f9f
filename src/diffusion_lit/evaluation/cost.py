"""How long it takes, estimated before images are drawn."""

import logging
import math
import time
from collections.abc import Mapping

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.distributed.collective import rank_and_size
from diffusion_lit.evaluation.cells import Cell
from diffusion_lit.evaluation.image_set import DrawnImages
from diffusion_lit.evaluation.report import cell_name

__all__ = ["announce", "estimate"]

log = logging.getLogger(__name__)


def estimate(cell: Cell, batch_size: int) -> tuple[dict[str, int], float]:
    """How often the network is called for an image, of images that are drawn, and the seconds that one takes.

    Classifier-free guidance passes an image twice to one call, which counts twice, as another model's call does.
    """
    images = cell.images
    if not isinstance(images, DrawnImages):
        return {}, 0.0
    passed, walked = 0, 0.0

    def count(_: object, arguments: tuple[Tensor, ...], output: object) -> None:  # no call that did not fit into memory
        nonlocal passed
        passed += len(arguments[0])

    def on_progress(done: float) -> None:
        nonlocal walked
        walked += done

    hooks = [m.register_forward_hook(count) for m in images.setup.denoiser.modules() if isinstance(m, Denoiser)]
    began = time.monotonic()
    next(images.batches(range(min(16, len(images))), batch_size, on_progress))
    seconds = (time.monotonic() - began) / walked
    for hook in hooks:
        hook.remove()
    return {"calls_per_image": round(passed / walked)}, seconds


def announce(cell: Cell, cost: tuple[Mapping[str, int], float], missing: int) -> None:
    """Say what there is to draw, and about how long that takes.

    Args:
        cell: the images.
        cost: as `estimate` gives it.
        missing: how many of them this process has to draw, which is about as many as each other has.
    """
    rank, size = rank_and_size()
    (calls, seconds), count = cost, min(missing * size, len(cell.images))
    if rank == 0 and calls and missing:
        named, each = f" ({cell_name(cell.named)})" if cell.named else "", calls["calls_per_image"]
        log.info(
            "drawing %d images%s, %d network calls each: about %s", count, named, each, duration(seconds * missing)
        )


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{math.ceil(seconds / 60)} min"
