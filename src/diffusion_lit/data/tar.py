"""Tar files in which the files of one name are an image and its label."""

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from diffusion_lit.source.image_file import Sample

__all__ = ["TarShards"]

BLOCK = 512  # bytes; a tar file ends with two of them, all zeros


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
        """The images of a shard.

        Raises:
            ValueError: if it is not there or not complete, or a sample in it has no image or no fitting label;
                the message names both.
        """
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
