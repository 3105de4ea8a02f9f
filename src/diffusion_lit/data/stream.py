"""A prepared set of any size, in a folder or in object storage."""

import multiprocessing
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_lit.data.order import TrainingOrder, permute_shards
from diffusion_lit.data.prepared import PreparedData
from diffusion_lit.files import replacement
from diffusion_lit.prepared.cache import ShardCache, download
from diffusion_lit.prepared.manifest import MANIFEST, Manifest
from diffusion_lit.prepared.reader import PreparedImages

__all__ = ["StreamData"]

THREADS = 8  # that fetch shards


@dataclass(eq=False, repr=False)
class StreamData(PreparedData):
    """A prepared set that need not fit on this machine: shards are fetched shortly before they are read.

    Each epoch is an order of all images in which only `num_lanes` shards are being read at a time (`permute_shards`);
    as with every other set it is a function of (seed, epoch), and a run can be resumed at any image, with any number
    of processes. Shards in a folder are read where they are.

    Args:
        root: a folder, or the URL of one (`s3://`, `gs://`, `azure://`, `r2://`).
        cache: where fetched shards are kept; by default below the user's cache folder, by the set's content.
        cache_gigabytes: how large the cache may grow, in GiB.
        num_lanes: shards that all processes together read at a time. More mix better and need a larger cache; best a
            multiple of the number of processes, each of which then reads shards of its own.
        ahead: shards that are fetched before they are needed.
        storage_options: for the storage's client, such as `endpoint_url`; credentials are the machine's.
        verify: as `PreparedData`; fetched shards are always verified.

    Raises:
        ValueError: if a setting is out of range, or the storage does not answer.
        FileNotFoundError: if there is no prepared set.
    """

    _: KW_ONLY
    cache: str | None = None
    cache_gigabytes: float = 50.0
    num_lanes: int = 16
    ahead: int = 4
    storage_options: Mapping[str, Any] | None = None
    num_workers: int = 2

    def __post_init__(self) -> None:
        for name, least in (("num_lanes", 1), ("ahead", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"data.{name} must be at least {least}, got {value}")
        root = self.root or ""
        self.remote = "://" in root or root.startswith("local:")
        self.root = root.rstrip("/")
        self.client_options = dict(self.storage_options or {})
        super().__post_init__()
        caches = Path(self.cache) if self.cache is not None else Path.home() / ".cache" / "diffusion-lit"
        folder = caches / self.manifest.shard_hash[:16]
        self.shard_cache = ShardCache(self.root, folder, int(self.cache_gigabytes * 2**30), self.client_options)
        if self.remote:
            self.find = self.shard_cache.find
            self.max_open = self.num_lanes + self.ahead
            self.start_method = "forkserver"  # storage clients have threads, which a forked process would lack
            multiprocessing.set_forkserver_preload(["diffusion_lit.data"])

    def read_manifest(self) -> Manifest:
        if not self.remote:
            return super().read_manifest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MANIFEST
            with replacement(path) as partial:
                download(f"{self.root}/{MANIFEST}", partial, self.client_options)
            return Manifest.load(path)

    def check(self) -> None:
        if not self.remote:
            super().check()
            return
        sizes = [shard.bytes for shard in self.manifest.shards]
        self.shard_cache.check(min(sum(sizes), (self.num_lanes + self.ahead) * max(sizes)))

    def training_order(self) -> TrainingOrder:
        sizes = [shard.count for shard in self.manifest.splits["train"].shards]
        permutation = partial(permute_shards, sizes, self.num_lanes)
        options = (sum(sizes), self.batch_size, self.seed, *self.process(), permutation, self.batches_per_step())
        if not self.remote:
            return TrainingOrder(*options)
        images = self.splits["train"]
        assert isinstance(images, PreparedImages)
        return FetchingOrder(*options, images=images, ahead=self.ahead)


@dataclass(eq=False, kw_only=True)
class FetchingOrder(TrainingOrder):
    """Prefetches the shards that the next batches of `images` read, `ahead` more than are needed at once."""

    images: PreparedImages
    ahead: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        steps, epoch = self.steps(), self.epoch
        horizon = self.ahead * len(self.images) // len(self.images.shards)
        coming: deque[Tensor] = deque()
        needed: deque[tuple[int, int]] = deque()
        met: set[int] = set()
        given = known = 0  # images of this rank's share
        with ThreadPoolExecutor(THREADS) as threads:
            try:
                while True:
                    reach = given + self.batch_size + horizon
                    while known < reach and (share := next(steps, None)) is not None:
                        needed.extend((known + place, shard) for place, shard in self.first_needs(share, met))
                        coming.extend(torch.split(share, self.batch_size))
                        known += len(share)
                    while needed and needed[0][0] < reach:
                        # an error is not raised here: whoever reads the shard meets it again
                        threads.submit(self.images.find, self.images.shards[needed.popleft()[1]])
                    if not coming:
                        return
                    batch = coming.popleft().tolist()
                    given += len(batch)
                    yield [(epoch, index) for index in batch]
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def first_needs(self, share: Tensor, met: set[int]) -> list[tuple[int, int]]:
        """The place in `share` where each shard is first needed that was not `met` before, and it; in that order."""
        homes = np.searchsorted(self.images.ends, share.numpy(), side="right")
        shards, places = np.unique(homes, return_index=True)
        found = sorted((p, s) for p, s in zip(places.tolist(), shards.tolist(), strict=True) if s not in met)
        met.update(shards.tolist())
        return found
