"""Shards of WebDataset: tar files in which the files of one name are an image and its label."""

from collections.abc import Iterable
from pathlib import Path

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.batch import Images
from diffusion_lit.data.order import TrainingOrder
from diffusion_lit.data.sequential_module import SequentialDataModule
from diffusion_lit.data.tar import TarShards

__all__ = ["WebDatasetData"]


class WebDatasetData(SequentialDataModule):
    """Images in WebDataset shards, streamed: see `SequentialDataModule` for what that cannot do.

    Args:
        urls: the shards to train on: paths or URLs, one or a list, with braces for numbers, as shards/{000..009}.tar.
        val_urls: those to validate on.
        test_urls: those to test on; None takes the validation images.
        epoch_size: how many images count as an epoch: shards do not say how many they have.
        resolution: height and width of the images after scaling and centre-cropping.
        channels: 3 for colour, 1 for grey.
        num_classes: labels lie below it; None trains without.
        image_key: the extensions that images may have, separated by semicolons.
        val_size: how many images to validate on, and to test on, at most: the first ones, held in memory.
        shuffle_buffer: how many encoded images each loading process keeps to choose the next one from.
        batch_size, num_workers, seed, augmentation: as `ImageDataModule`.

    Raises:
        ValueError: if the package webdataset is missing, or an argument is missing or out of range.
        FileNotFoundError: if a local shard is not there.
    """

    def __init__(
        self,
        urls: str | Iterable[str] | None,
        val_urls: str | Iterable[str] | None,
        test_urls: str | Iterable[str] | None = None,
        epoch_size: int | None = None,
        resolution: int = 64,
        channels: int = 3,
        num_classes: int | None = None,
        image_key: str = "jpg;jpeg;png;webp",
        val_size: int = 1000,
        shuffle_buffer: int = 1000,
        batch_size: int = 32,
        num_workers: int = 2,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(
            resolution, channels, epoch_size, val_size, shuffle_buffer, batch_size, num_workers, seed, augmentation
        )
        if epoch_size is None:
            raise ValueError("shards do not say how many images they have: give data.epoch_size=NUMBER of images")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"data.num_classes must be at least 1, or null for none, got {num_classes}")
        self.num_classes = num_classes
        self.class_names = None if num_classes is None else [str(label) for label in range(num_classes)]
        given = {"train": ("urls", urls), "val": ("val_urls", val_urls), "test": ("test_urls", test_urls)}
        self.shards = {
            split: TarShards(expand(value, option), image_key, num_classes)
            for split, (option, value) in given.items()
            if value is not None or split != "test"
        }

    @property
    def source(self) -> str:
        urls = self.shards["train"].urls
        return f"data.urls ({urls[0]}{' ...' if len(urls) > 1 else ''})"

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
    """Each URL that is meant, braces resolved.

    Raises:
        ValueError: if there is none, or the package webdataset is missing.
        FileNotFoundError: if a local one is not there.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise ValueError(
            f"data=webdataset needs a package: pip install 'diffusion-lit[webdataset]' ({error})"
        ) from error

    found = [url for text in ([urls] if isinstance(urls, str) else urls or []) for url in expand_urls(text)]
    if not found:
        raise ValueError(f"say where the shards are: 'data.{option}=\"FOLDER/{{000..009}}.tar\"', or a list of them")
    for url in found:
        if "://" not in url and not url.startswith("pipe:") and not Path(url.removeprefix("file:")).is_file():
            raise FileNotFoundError(f"data.{option}: there is no file {url} (in {Path.cwd()})")
    return found
