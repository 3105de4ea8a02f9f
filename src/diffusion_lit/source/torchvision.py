"""Images of torchvision's datasets."""

import inspect
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffusion_lit.source.base import UNLABELLED, Entry, Source
from diffusion_lit.source.image_file import UNREADABLE, Reading
from diffusion_lit.source.layout import SPLITS, share_out

__all__ = ["TorchvisionSource", "open_dataset"]


def open_dataset(name: str, root: Path, download: bool, prefix: str, **split: bool | str) -> Any:
    """A split of a dataset of torchvision's.

    Args:
        name: name of its class.
        root: the folder that torchvision keeps its datasets in.
        download: fetch what is not there.
        prefix: prefix of the settings' names in a message.
        split: as its class takes it.

    Raises:
        FileNotFoundError: if it is not there and cannot be fetched.
    """
    import torchvision.datasets

    try:
        return getattr(torchvision.datasets, name)(root, **split, download=download)
    except (RuntimeError, OSError) as error:
        reason = f"its download failed ({error})" if download else f"it is not there ({error})"
        raise FileNotFoundError(
            f"{name} was looked for in {root.absolute()}, and {reason}. Put torchvision's files there, or name "
            f"their folder with {prefix}root=, or run once with a network and {prefix}download=true"
        ) from error


class TorchvisionSource(Source):
    """A dataset of torchvision's that gives an image and a class.

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
        for split in SPLITS:
            argument = {"train": split == "train"} if "train" in parameters else {"split": split}
            if "train" in parameters and split == "val":
                continue
            try:
                self.datasets[split] = open_dataset(name, root, download, "", **argument)
            except ValueError:  # no such split
                continue
        if "train" not in self.datasets:
            raise ValueError(f"torchvision's {name} has no split train: it cannot be prepared from there")
        first = self.datasets["train"]
        names = getattr(first, "classes", None)
        self.class_names = None if names is None else [str(name) for name in names]
        self.places = share_out(
            {split: len(data) for split, data in self.datasets.items()}, self.description, val_fraction
        )
        self.splits = {
            split: [Entry(f"{of}/{index:07d}", self.label(of, index), "") for of, index in places]
            for split, places in self.places.items()
        }

    def label(self, split: str, index: int) -> int:
        data = self.datasets[split]
        known = next((getattr(data, key) for key in ("targets", "labels", "_labels") if hasattr(data, key)), None)
        label = data[index][1] if known is None else known[index]
        return int(label) if self.class_names is not None else UNLABELLED

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        of, number = self.places[split][index]
        try:
            image = self.datasets[of][number][0]
            assert isinstance(image, Image.Image)
            return reading.square(image)
        except UNREADABLE as error:
            raise ValueError(f"{of}/{number:07d} of {self.description} cannot be read: {error}") from error
