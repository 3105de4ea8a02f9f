"""Images of other libraries' datasets."""

import inspect
import io
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffusion_lit.data.hub import choose_columns, open_dataset, sample_of
from diffusion_lit.data.image_file import UNREADABLE, to_square
from diffusion_lit.data.layout import SPLIT_NAMES, SPLITS, hashed_split
from diffusion_lit.prepared.shard import UNLABELLED
from diffusion_lit.prepared.source import Entry, Reading, Source

__all__ = ["HuggingFaceSource", "TorchvisionSource"]


class TorchvisionSource(Source):
    """A dataset of torchvision's that gives an image and a class.

    Args:
        name: of its class, such as `CIFAR10`.
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
                self.datasets[split] = kind(root, **argument, download=download)
            except ValueError:  # no such split
                continue
            except (RuntimeError, OSError) as error:
                reason = f"its download failed ({error})" if download else f"it is not there ({error})"
                raise FileNotFoundError(
                    f"{name} was looked for in {root.absolute()}, and {reason}. Put torchvision's files there, or name "
                    "their folder with root=, or run once with a network and download=true"
                ) from error
        if "train" not in self.datasets:
            raise ValueError(f"torchvision's {name} has no split train: it cannot be prepared from there")
        first = self.datasets["train"]
        names = getattr(first, "classes", None)
        self.class_names = None if names is None else [str(name) for name in names]
        self.left_out = []
        self.places = share_out({split: len(data) for split, data in self.datasets.items()}, val_fraction)
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
            return to_square(image, reading.resolution, reading.channels, reading.fit, reading.filter)
        except UNREADABLE as error:
            raise ValueError(f"{of}/{number:07d} of {self.description} cannot be read: {error}") from error


def share_out(sizes: dict[str, int], val_fraction: float) -> dict[str, list[tuple[str, int]]]:
    """The three splits as (split of the library, number), what is missing set aside from the library's `train`.

    Args:
        sizes: how many images each split of the library has, by its name.
        val_fraction: the share to set aside, for each split that is missing.
    """
    known = {SPLIT_NAMES[name]: name for name in sizes if name in SPLIT_NAMES}
    if "train" not in known:
        raise ValueError(f"needs a split named train; there are {', '.join(sizes)}")
    places: dict[str, list[tuple[str, int]]] = {
        split: [(known[split], i) for i in range(sizes[known[split]])] if split in known else [] for split in SPLITS
    }
    missing = [split for split in ("val", "test") if split not in known]
    if missing:
        everything, places["train"] = places["train"], []
        for place in everything:
            split = hashed_split(f"{place[0]}/{place[1]:07d}", val_fraction)
            places[split if split in missing else "train"].append(place)
    return places


class HuggingFaceSource(Source):
    """A dataset of the Hugging Face hub, or one in a folder that its package reads.

    Args:
        name: `OWNER/NAME`, or a folder; a configuration may follow a colon.
        columns: of the images and of the classes; None finds the only one of its kind.
        val_fraction: the share of `train` set aside where there is no `validation` or `test`.

    Raises:
        ValueError: if it has no split `train`, or no column of images, or several.
        FileNotFoundError: if it is not there and cannot be fetched.
    """

    def __init__(self, name: str, columns: tuple[str | None, str | None], val_fraction: float) -> None:
        from datasets import Image as ImageColumn

        self.description = f"hf:{name}"
        name, _, config = name.partition(":")
        tables = open_dataset(name, config or None, streaming=False)
        features = tables["train"].features if "train" in tables else None
        self.image_column, self.label_column = choose_columns(name, features, columns, prefix="")
        self.class_names = list(features[self.label_column].names) if features and self.label_column else None
        self.left_out = []
        self.tables = {
            split: table.cast_column(self.image_column, ImageColumn(decode=False)) for split, table in tables.items()
        }
        self.places = share_out({split: len(table) for split, table in self.tables.items()}, val_fraction)
        labels = {
            split: table[self.label_column][:] if self.label_column else [UNLABELLED] * len(table)
            for split, table in self.tables.items()
        }
        self.splits = {
            split: [
                Entry(f"{of}/{row:09d}", labels[of][row], getattr(self.tables[of], "_fingerprint", ""))
                for of, row in places
            ]
            for split, places in self.places.items()
        }

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        of, row = self.places[split][index]
        name = f"row {row} of {self.description}, {of}"
        columns, classes = self.tables[of][row], self.class_names
        label = columns[self.label_column] if self.label_column else None
        sample = sample_of(columns[self.image_column], label, None if classes is None else len(classes), name)
        return reading.read(io.BytesIO(sample.image), name)
