"""How long it takes, estimated before images are drawn."""

import logging
import math
import time
from typing import Any

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.distributed.collective import rank_and_size
from diffusion_lit.evaluation.cells import Cell
from diffusion_lit.evaluation.image_set import DrawnImages
from diffusion_lit.evaluation.report import cell_name
from diffusion_lit.generate import walk_size

__all__ = ["estimate"]

log = logging.getLogger(__name__)


def estimate(cell: Cell, batch_size: int) -> dict[str, Any]:
    """How often the network is called for an image; said, with how long all may take, before they are drawn.

    Classifier-free guidance passes an image twice to one call, which counts twice, as another model's call does.
    """
    images = cell.images
    if not isinstance(images, DrawnImages):
        return {}
    passed = 0

    def count(_: object, arguments: tuple[Tensor, ...]) -> None:
        nonlocal passed
        passed += len(arguments[0])

    hooks = [m.register_forward_pre_hook(count) for m in images.setup.denoiser.modules() if isinstance(m, Denoiser)]
    began = time.monotonic()
    walked = walk_size(images.setup.device, batch_size)
    next(images.batches(range(min(16, len(images))), batch_size))
    seconds = (time.monotonic() - began) / walked * len(images) / rank_and_size()[1]
    for hook in hooks:
        hook.remove()
    calls = round(passed / walked)
    if rank_and_size()[0] == 0:
        named = f" ({cell_name(cell.named)})" if cell.named else ""
        log.info("drawing %d images%s, %d network calls each: about %s", len(images), named, calls, duration(seconds))
    return {"calls_per_image": calls}


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{math.ceil(seconds / 60)} min"
