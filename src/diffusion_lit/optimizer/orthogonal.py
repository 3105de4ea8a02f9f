"""The nearest orthogonal matrices, by products of matrices alone."""

import torch
from torch import Tensor

__all__ = ["orthogonal"]

A, B, C = 3.4445, -4.7750, 2.0315
"""a x + b x^3 + c x^5, again and again, brings every x of (0, 1] near 1, and small ones there soonest."""


def orthogonal(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """About U V^T of each matrix U S V^T: its singular values become 0.7 to 1.2 and its singular vectors stay.

    Newton-Schulz iterations (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): X <- a X + (b X X^T + c (X
    X^T)^2) X. A singular value of less than about a thousandth of the matrix's norm gets only part of the way.

    Args:
        matrices: [N, rows, columns]; of zeros become zeros.
        num_steps: iterations.

    Returns:
        [N, rows, columns].
    """
    high = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if high else matrices
    if x.is_cuda:
        x = x.to(torch.bfloat16)  # the iteration undoes its own rounding; a CPU is often slower by it
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return (x.mT if high else x).to(matrices.dtype)
