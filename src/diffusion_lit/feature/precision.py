"""float32 that is float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

BACKENDS = (
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cuda.matmul,
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
)


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Compute in float32, whatever a run has chosen for speed: no autocast, no TF32, no bfloat16 within products.

    cuDNN's convolutions use TF32 unless that is switched off, and products do after
    `torch.set_float32_matmul_precision`; features then differ in the third digit between machines and batch sizes.
    """
    chosen = [backend.fp32_precision for backend in BACKENDS]
    try:
        for backend in BACKENDS:
            backend.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, precision in zip(BACKENDS, chosen, strict=True):
            backend.fp32_precision = precision
