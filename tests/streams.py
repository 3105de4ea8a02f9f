"""Small data sets in other projects' formats, each image of one grey level, which is its number."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.utilities.data import _set_sampler_epoch
from PIL import Image

from diffusion_lit.data import HuggingFaceData, ImageDataModule, WebDatasetData

KINDS = ("hugging_face", "webdataset")
SHARDS = (1, 9, 3, 7, 2, 4)  # images in each
NUM_IMAGES = sum(SHARDS)
VAL = range(200, 217)
SHARD_OF = [shard for shard, size in enumerate(SHARDS) for _ in range(size)]


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), number, np.uint8)).save(file, "png")
    return file.getvalue()


def write_parquet(path: Path, numbers: Sequence[int], classes: int | None = 3) -> None:
    """Image number n has class n % `classes`."""
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {"picture": [{"bytes": png(n), "path": None} for n in numbers]}
    features: dict[str, Any] = {"picture": datasets.Image()}
    if classes:
        columns["kind"] = [n % classes for n in numbers]
        features["kind"] = datasets.ClassLabel(names=[f"class {i}" for i in range(classes)])
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)


def write_tar(path: Path, numbers: Sequence[int], **more: bytes) -> None:
    """Image number n has class n % 3; `more` are other files that each sample has, by their extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for n in numbers:
            for extension, data in ({"png": png(n), "cls": str(n % 3).encode()} | more).items():
                info = tarfile.TarInfo(f"{n:03d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_stream(kind: str, root: Path, sizes: Sequence[int] = SHARDS) -> None:
    """Shards of `sizes` images, numbered from 0 on, and a split of those in VAL."""
    first = 0
    for shard, size in enumerate(sizes):
        numbers = range(first, first + size)
        first += size
        if kind == "hugging_face":
            write_parquet(root / "data" / f"train-{shard:05d}-of-{len(sizes):05d}.parquet", numbers)
        else:
            write_tar(root / f"train-{shard}.tar", numbers)
    if kind == "hugging_face":
        write_parquet(root / "data" / "validation-00000-of-00001.parquet", VAL)
    else:
        write_tar(root / "val.tar", VAL)


def stream(kind: str, root: Path, rank: int = 0, world_size: int = 1, **options: Any) -> ImageDataModule:
    """What `write_stream` wrote, as a process sees it, set up."""
    options = {"epoch_size": 24, "resolution": 2, "channels": 1, "batch_size": 2, "num_workers": 0} | options
    data: ImageDataModule
    if kind == "hugging_face":
        data = HuggingFaceData(str(root), streaming=True, **options)
    else:
        last = len(list(root.glob("train-*.tar"))) - 1
        urls = f"{root}/train-{{0..{last}}}.tar"
        data = WebDatasetData(urls, str(root / "val.tar"), **{"num_classes": 3} | options)
    return as_rank(data, rank, world_size)


def as_rank(data: ImageDataModule, rank: int, world_size: int) -> Any:
    data.process = lambda: (rank, world_size)  # type: ignore[method-assign]
    data.setup()
    return data


def epoch_of(loader: Any, epoch: int) -> list[list[int]]:
    """The numbers of the images in each batch of an epoch; that their labels are theirs is checked."""
    _set_sampler_epoch(loader, epoch)
    batches = []
    for batch in loader:
        numbers = batch.images[:, 0, 0, 0].tolist()
        assert batch.condition.label is None or batch.condition.label.tolist() == [n % 3 for n in numbers]
        batches.append(numbers)
    return batches
