"""What a model is given beside x_t and t."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["NO_CLASS", "UNCONDITIONAL", "Condition"]

NO_CLASS = -1
"""The label of an image whose class is not known, or not given."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What is known of each image of a batch; a field is [B, ...], or None where nothing is.

    The data module fills it and the network reads it; everything between passes it on unopened. A further condition is
    one more field here, and one more layer of the network.
    """

    label: Tensor | None = None
    """Classes, int64 [B]; `NO_CLASS` where there is none."""
    augment_label: Tensor | None = None
    """How the images were augmented, float32 [B, k], all zeros for an image left as it is (Karras et al. 2022, F.2)."""

    def masked(self, dropped: Tensor) -> "Condition":
        """The same, with the content of the images for which `dropped`, bool [B], is true unknown."""
        return self if self.label is None else replace(self, label=self.label.masked_fill(dropped, NO_CLASS))

    def null(self) -> "Condition":
        """The same, with the content of all images unknown."""
        return self if self.label is None else replace(self, label=torch.full_like(self.label, NO_CLASS))

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is known."""
        return all(value is None for value in vars(self).values())

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """`function` of each field that is not None: a move to a device, a selection of images."""
        return Condition(**{name: None if value is None else function(value) for name, value in vars(self).items()})

    def __getitem__(self, images: Tensor | slice) -> "Condition":
        """The condition of some of the images."""
        return self.apply(lambda value: value[images])

    @staticmethod
    def cat(parts: Sequence["Condition"]) -> "Condition":
        """The conditions of several batches, which have the same fields, one after the other."""
        columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        return Condition(**{name: None if values[0] is None else torch.cat(values) for name, values in columns.items()})


UNCONDITIONAL = Condition()
"""Nothing is known."""
