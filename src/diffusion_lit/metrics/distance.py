"""Euclidean distances between two sets of features, a few rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["count_spheres", "nearest", "radii", "squared_distances"]

CHUNK = 2**22
"""Distances held at a time: 16 MiB in float32, which caches hold."""


def squared_distances(queries: Tensor, references: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """|q - r|^2 as |q|^2 - 2 q r + |r|^2, around the references' mean, where rounding is least.

    Args:
        queries: [N, d].
        references: [M, d].

    Yields:
        Rows of the queries, and their squared distances [rows, M].
    """
    centre = references.mean(0)
    references = references - centre
    squares = references.square().sum(1)
    step = max(1, CHUNK // max(references.shape))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        x = queries[rows] - centre
        products = torch.addmm(squares, x, references.T, alpha=-2)
        yield rows, products.add_(x.square().sum(1, keepdim=True)).clamp_(min=0)


def nearest(queries: Tensor, references: Tensor, k: int = 1, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query.

    Args:
        queries: [N, d].
        references: [M, d], M >= k.
        k: how many.
        exclude_self: the queries are the references, and none is a neighbour of itself (M > k).

    Returns:
        Distances [N, k], recomputed from the differences so that a copy's is 0, and indices [N, k].
    """
    found = []
    for rows, squares in squared_distances(queries, references):
        if exclude_self:
            squares.diagonal(rows.start).fill_(torch.inf)
        found.append(squares.topk(k, largest=False).indices)
    indices = torch.cat(found)
    distances = [(queries - references[column]).norm(dim=1) for column in indices.unbind(1)]
    return torch.stack(distances, dim=1), indices


def radii(features: Tensor, k: int) -> Tensor:
    """The distance of each image [N] to its k-th nearest neighbour in the same set, itself not counted."""
    return nearest(features, features, k, exclude_self=True)[0].amax(1)


def count_spheres(queries: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """How many of the spheres around `centres` [M, d], of `radius` [M], each query [N, d] lies in: int64 [N].

    What rounding may have added to a squared distance counts as within: a copy of a centre lies in its sphere, also in
    one without extent, which a duplicate beside it makes.
    """
    largest = max((x - centres.mean(0)).square().sum(1).max() for x in (queries, centres))
    reach = radius.square() + 4 * torch.finfo(radius.dtype).eps * largest
    return torch.cat([(squares <= reach).sum(1) for _, squares in squared_distances(queries, centres)])
