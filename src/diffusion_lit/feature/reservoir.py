"""A sample of a stream, of a size that fits into memory."""

from collections.abc import Iterable

import torch
from torch import Tensor


def reservoir(batches: Iterable[tuple[Tensor, Tensor]], size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw `size` examples of a stream of unknown length, each with equal probability (Vitter 1985, algorithm R).

    Args:
        batches: examples and their labels, [B, ...] and [B]; at least one.
        size: how many are kept at most.
        seed: seed of the choice.

    Returns:
        The examples and labels that were kept, all of them if there are not more.
    """
    kept: list[Tensor] = []
    labels: list[Tensor] = []
    generator, count = torch.Generator().manual_seed(seed), 0
    for batch in batches:
        for example, label in zip(*batch, strict=True):
            count += 1
            if len(kept) < size:
                kept.append(example.clone())  # a view would hold all of its batch
                labels.append(label)
            elif (place := int(torch.randint(count, (), generator=generator))) < size:
                kept[place], labels[place] = example.clone(), label
    return torch.stack(kept), torch.stack(labels)
