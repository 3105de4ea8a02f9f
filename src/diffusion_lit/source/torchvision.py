"""Images of torchvision's datasets."""

import inspect
from contextlib import suppress
from itertools import takewhile
from numbers import Integral
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffusion_lit.source.base import UNLABELLED, TableSource
from diffusion_lit.source.image_file import Reading
from diffusion_lit.source.layout import SPLIT_NAMES

__all__ = ["TorchvisionSource", "open_dataset"]


def open_dataset(name: str, root: Path, download: bool, prefix: str, **split: bool | str) -> Any:
    """A split of a dataset; a FileNotFoundError, whose settings begin with `prefix`, if it cannot be fetched."""
    import torchvision.datasets

    try:
        return getattr(torchvision.datasets, name)(root, **split, download=download)
    except (RuntimeError, OSError) as error:
        reason = f"its download failed ({error})" if download else f"it is not there ({error})"
        raise FileNotFoundError(
            f"{name} was looked for in {root.absolute()}, and {reason}. Put torchvision's files there, or name "
            f"their folder with {prefix}root=, or run once with a network and {prefix}download=true"
        ) from error


def labels_of(data: Any) -> list[int]:
    """The class of each image, `UNLABELLED` where it has none or where something else than numbers is beside images."""
    known = next((getattr(data, key) for key in ("targets", "labels", "_labels") if hasattr(data, key)), None)
    if known is None:
        known = (data[i][1] for i in range(len(data)))
    elif isinstance(known, Tensor):
        known = known.tolist()
    labels = list(takewhile(lambda label: label is None or isinstance(label, Integral), known))
    if len(labels) < len(data):
        return [UNLABELLED] * len(data)
    return [UNLABELLED if label is None else int(label) for label in labels]


class TorchvisionSource(TableSource):
    """A dataset of torchvision's that gives an image and a class, which has a number where the dataset names none.

    Args:
        name: name of its class, such as `CIFAR10`.
        root: the folder that torchvision keeps its datasets in.
        download: fetch what is not there.
        val_fraction: the share of `train` set aside where torchvision has no `val` or `test`.

    Raises:
        ValueError: if there is no such dataset, or it is not of images and classes.
        FileNotFoundError: if it is not there and cannot be fetched.
    """

    def __init__(self, name: str, root: Path, download: bool, val_fraction: float) -> None:
        import torchvision.datasets

        self.description = f"torchvision:{name}"
        kind = getattr(torchvision.datasets, name, None)
        parameters = inspect.signature(kind.__init__).parameters if inspect.isclass(kind) else {}
        if kind is None or not {"train", "split"} & parameters.keys() or "download" not in parameters:
            raise ValueError(
                f"torchvision has no dataset {name} with splits that it can fetch; CIFAR10, CIFAR100, FashionMNIST, "
                "Flowers102, Food101, MNIST, STL10 and SVHN are some"
            )
        self.datasets: dict[str, Any] = {}
        for split in ("train", "test") if "train" in parameters else SPLIT_NAMES:
            argument = {"train": split == "train"} if "train" in parameters else {"split": split}
            with suppress(ValueError):  # no such split
                self.datasets[split] = open_dataset(name, root, download, "", **argument)
        if "train" not in self.datasets:
            raise ValueError(f"torchvision's {name} has no split train: it cannot be prepared from there")
        labels = {split: labels_of(data) for split, data in self.datasets.items()}
        largest = max(label for known in labels.values() for label in known)
        names = getattr(self.datasets["train"], "classes", range(largest + 1))
        self.class_names = [str(name) for name in names] if largest > UNLABELLED else None
        self.share_out(labels, val_fraction, dict.fromkeys(labels, ""))

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        of, number = self.places[split][index]
        try:
            image = self.datasets[of][number][0]
            assert isinstance(image, Image.Image)
            return reading.shape(image)
        except MemoryError:
            raise
        except Exception as error:  # what is damaged raises anything
            name = self.splits[split][index].name
            raise ValueError(f"{name} of {self.description} cannot be read: {error}") from error
