"""Of which classes images are to be: what `labels=` means, as a function of each image's index."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from diffusion_lit.random import fold_in

__all__ = ["Labels", "OnePerWay", "choose_classes", "choose_labels", "proportional_labels"]

GOLDEN = 0x9E3779B1  # 2^32 / golden ratio


class Labels(Protocol):
    """The class of image i is `labels[i]`: of a list, or of what is computed as it is asked for."""

    def __getitem__(self, index: int, /) -> int: ...


@dataclass(frozen=True)
class LabelsInTurn:
    """The classes one after another, again and again."""

    classes: tuple[int, ...]

    def __getitem__(self, index: int, /) -> int:
        return self.classes[index % len(self.classes)]


@dataclass(frozen=True)
class UniformLabels:
    """Each class is equally likely, whatever the others are: a function of (seed, index)."""

    num_classes: int
    seed: int

    def __getitem__(self, index: int, /) -> int:
        return int(torch.randint(self.num_classes, (), generator=fold_in(self.seed, "label", index)))


@dataclass(frozen=True)
class ProportionalLabels:
    """Classes in the proportions of `counts`, evenly mixed: among any images in a row, each has its share, give or take
    3 images.

    The class is where the fractional part of index / golden ratio lies, the sequence of least discrepancy that needs no
    number of images in advance (Kuipers & Niederreiter 1974, section 2.3).
    """

    counts: tuple[int, ...]

    @cached_property
    def ends(self) -> list[int]:
        return list(accumulate(self.counts))

    def __getitem__(self, index: int, /) -> int:
        return bisect_right(self.ends, index * GOLDEN % 2**32 * self.ends[-1] // 2**32)


def proportional_labels(known: Tensor | None, num_classes: int | None) -> ProportionalLabels | None:
    """Labels in the proportions of these; None where there are none, or a model does not have all their classes.

    Args:
        known: int64 [N], negative where an image's class is not known; None without classes.
        num_classes: how many the model has, or None.
    """
    if known is None or num_classes is None or not (known >= 0).any() or int(known.max()) >= num_classes:
        return None
    return ProportionalLabels(tuple(torch.bincount(known[known >= 0], minlength=num_classes).tolist()))


@dataclass(frozen=True)
class OnePerWay:
    """All images on the way from one noise to the next, `length` of them, are of one class."""

    labels: Labels
    length: int

    def __getitem__(self, index: int, /) -> int:
        return self.labels[index // self.length]


def choose_labels(
    labels: object, num_classes: int | None, names: Sequence[str] | None, counts: Sequence[int] | None, seed: int
) -> Labels | None:
    """What `labels=` asks for: `uniform`, `data`, or classes (see `choose_classes`); None without classes.

    Args:
        labels: the setting; a class may itself be called `uniform` or `data`, and is then meant.
        num_classes, names: how many classes the model has, or None, and what they are called, if that is known.
        counts: how many training images each class has, if that is known.
        seed: of labels that are drawn.

    Raises:
        ValueError: if the model has no such classes, or nothing is known of its data.
    """
    if num_classes is not None and labels not in (names or ()):
        if labels == "uniform":
            return UniformLabels(num_classes, seed)
        if labels == "data":
            if counts is None or len(counts) != num_classes or not sum(counts):
                raise ValueError(
                    "labels=data takes the proportions of the training images, which this checkpoint does not have: "
                    "it was written by an older version, or the data does not count its classes. Use labels=uniform, "
                    "or list classes as often as they are to come"
                )
            return ProportionalLabels(tuple(counts))
    classes = choose_classes(labels, num_classes, names)
    return None if classes is None else LabelsInTurn(tuple(classes))


def choose_classes(labels: object, num_classes: int | None, names: Sequence[str] | None) -> list[int] | None:
    """The classes that `labels` asks for, by name or number; None means all. A ValueError if the model lacks them."""
    if labels is None:
        return None if num_classes is None else list(range(num_classes))
    if num_classes is None:
        raise ValueError(f"labels={labels}, but this model was trained without classes; leave labels out")
    asked = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
    numbers = {str(i): i for i in range(num_classes)} | {name: i for i, name in enumerate(names or [])}
    if not asked or any(str(label) not in numbers for label in asked):
        listed = "" if names is None else f" or their names ({', '.join(names[:20])}{', ...' if names[20:] else ''})"
        raise ValueError(
            f"labels must be classes from 0 to {num_classes - 1}{listed}, got {labels}; or null for all in turn, "
            "uniform or data"
        )
    return [numbers[str(label)] for label in asked]
