"""Shards of WebDataset: tar files in which the files of one name are an image and its label."""

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import IO, Any

from diffusion_lit.data.batch import Images
from diffusion_lit.data.order import TrainingOrder
from diffusion_lit.data.sequential_module import SequentialDataModule
from diffusion_lit.extra import require
from diffusion_lit.source.image_file import Sample

__all__ = ["TarShards", "WebDatasetData"]

BLOCK = 512  # bytes; a tar file ends with two of them, all zeros


@dataclass(eq=False, repr=False)
class WebDatasetData(SequentialDataModule):
    """Images in WebDataset shards, streamed: see `SequentialDataModule` for what that cannot do.

    Args:
        urls: the shards to train on: paths or URLs, one or a list, with braces for numbers, as shards/{000..009}.tar.
        val_urls: those to validate on.
        test_urls: those to test on; None takes the validation images.
        epoch_size: how many images count as an epoch: shards do not say how many they have.
        num_classes: labels lie below it; None trains without.
        image_key: the extensions that images may have, separated by semicolons.

    Raises:
        ValueError: if the package webdataset is missing, or an argument is missing or out of range.
        FileNotFoundError: if a local shard is not there.
    """

    urls: str | Iterable[str] | None
    val_urls: str | Iterable[str] | None
    _: KW_ONLY
    test_urls: str | Iterable[str] | None = None
    num_classes: int | None = None
    image_key: str = "jpg;jpeg;png;webp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epoch_size is None:
            raise ValueError("shards do not say how many images they have: give data.epoch_size=NUMBER of images")
        if self.num_classes is not None:
            if self.num_classes < 1:
                raise ValueError(f"data.num_classes must be at least 1, or null for none, got {self.num_classes}")
            self.class_names = [str(label) for label in range(self.num_classes)]
        options = {"train": "urls", "val": "val_urls", "test": "test_urls"}
        if self.test_urls is None:
            del options["test"]
        self.shards = {
            split: TarShards(expand(getattr(self, option), option), self.image_key, self.num_classes)
            for split, option in options.items()
        }
        first, *more = self.shards["train"].urls
        self.source = f"data.urls ({first}{' ...' if more else ''})"

    def load(self) -> dict[str, Images]:
        assert self.epoch_size is not None
        val = self.in_memory(self.shards["val"])[0]
        test = self.in_memory(self.shards["test"])[0] if "test" in self.shards else val
        return {"train": self.streamed(self.shards["train"], self.epoch_size), "val": val, "test": test}

    def training_order(self) -> TrainingOrder:
        _, world_size = self.process()
        num_shards, num_workers = self.shards["train"].num_shards, max(1, self.num_workers)
        if num_shards < world_size * num_workers:
            most = num_shards // world_size
            remedy = f"use data.num_workers={most}" if most else "use fewer processes, or cut the data into more shards"
            raise ValueError(
                f"data.urls are {num_shards} shards, too few for {world_size} processes x {num_workers} loading "
                f"processes, each of which reads shards of its own: {remedy}"
            )
        return super().training_order()


def expand(urls: str | Iterable[str] | None, option: str) -> list[str]:
    """Each URL that is meant, braces resolved; local ones are there."""
    expand_urls = require("webdataset.shardlists", "webdataset", "data=webdataset").expand_urls
    found = [url for text in ([urls] if isinstance(urls, str) else urls or []) for url in expand_urls(text)]
    if not found:
        raise ValueError(f"say where the shards are: 'data.{option}=\"FOLDER/{{000..009}}.tar\"', or a list of them")
    for url in found:
        if "://" not in url and not url.startswith("pipe:") and not Path(url.removeprefix("file:")).is_file():
            raise FileNotFoundError(f"data.{option}: there is no file {url} (in {Path.cwd()})")
    return found


@dataclass
class Ending:
    """A binary stream that remembers the last block that was read from it."""

    stream: IO[bytes] | gzip.GzipFile
    block: bytes = b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.block = (self.block + data)[-BLOCK:]
        return data


@dataclass(eq=False)
class TarShards:
    """Tar files, local or at a URL.

    Only bytes are taken from them: images are decoded by Pillow, labels are text or JSON, and nothing is unpickled.

    Args:
        urls: paths, or what the webdataset package opens.
        image_key: the extensions that images may have, separated by semicolons.
        num_classes: labels lie below it; None reads none.
    """

    urls: list[str]
    image_key: str
    num_classes: int | None

    @property
    def num_shards(self) -> int:
        return len(self.urls)

    def read(self, shard: int) -> Iterator[Sample]:
        """The images of a shard; a ValueError names it, and a sample, if it is cut short or lacks an image or label."""
        url = self.urls[shard]
        for files in self.samples(url):
            name = f"{files['__key__']} of {url}"
            key = next((key for key in self.image_key.split(";") if key in files), None)
            if key is None:
                there = " ".join(sorted(key for key in files if not key.startswith("__")))
                raise ValueError(
                    f"sample {name} has no image: its files are {there}, and data.image_key is {self.image_key}; name "
                    "the images' extension there"
                )
            yield Sample(files[key], None if self.num_classes is None else self.label(files, name), name)

    def samples(self, url: str) -> Iterator[dict[str, Any]]:
        """The files of each sample by their extensions, and its name as `__key__`."""
        from webdataset.tariterators import group_by_keys

        try:
            yield from group_by_keys({**file, "__url__": url} for file in self.files(url))
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
            raise ValueError(
                f"shard {url} cannot be read to its end: it is missing, cut short or damaged; replace it, or leave "
                f"it out ({type(error).__name__}: {error})"
            ) from error

    def files(self, url: str) -> Iterator[dict[str, Any]]:
        from webdataset.gopen import gopen
        from webdataset.tariterators import tar_file_iterator

        with gopen(url) as stream:
            packed = url.endswith((".gz", ".tgz"))
            ending = Ending(gzip.GzipFile(fileobj=stream, mode="rb") if packed else stream)
            yield from tar_file_iterator(ending)
        # Between two files tarfile takes any end for the end.
        if (packed or url.endswith(".tar")) and any(ending.block):
            raise EOFError("it ends without the zeros that close a tar file")

    def label(self, files: Mapping[str, bytes], name: str) -> int:
        """The label of a sample, from its file `cls` or the key `label` of its file `json`."""
        assert self.num_classes is not None
        try:
            label = int(files["cls"] if "cls" in files else json.loads(files["json"])["label"])
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"sample {name} has no label: with data.num_classes={self.num_classes} each needs a number in a file "
                f'cls, or {{"label": number}} in a file json; data.num_classes=null trains without labels '
                f"({type(error).__name__}: {error})"
            ) from error
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f"sample {name} has label {label}, which is not in 0 .. {self.num_classes - 1}: "
                f"data.num_classes={self.num_classes} is too small, or the label is wrong"
            )
        return label
