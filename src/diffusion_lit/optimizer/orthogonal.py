"""The nearest orthogonal matrices, by products of matrices alone."""

import torch
from torch import Tensor

from diffusion_lit.feature.precision import full_precision

__all__ = ["orthogonal"]

A, B, C = 3.4445, -4.7750, 2.0315
"""a x + b x^3 + c x^5, again and again, brings every x of (0, 1] near 1, and small ones there soonest."""


def orthogonal(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """About U V^T of each matrix U S V^T: its singular values become 0.7 to 1.2 and its singular vectors stay.

    Newton-Schulz iterations (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon),

        X <- R X,   R = a + b X X^T + c (X X^T)^2.

    Kernels are many times wider than high, so that what is iterated is X X^T <- R X X^T R and the product of all R,
    both small, and only that product meets X. Singular values of less than about a thousandth of the matrix's norm get
    part of the way.

    Args:
        matrices: [N, rows, columns]; of zeros become zeros.
        num_steps: iterations.

    Returns:
        [N, rows, columns].
    """
    high = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if high else matrices).float()
    with full_precision(x.device.type):  # what small singular values are found by is the last digits of X X^T
        x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
        square = x @ x.mT
        product = one = torch.eye(x.shape[1], device=x.device)
        for _ in range(num_steps):
            r = A * one + torch.baddbmm(square, square, square, beta=B, alpha=C)
            square, product = r @ square @ r, r @ product
        x = product @ x
    return (x.mT if high else x).to(matrices.dtype)
