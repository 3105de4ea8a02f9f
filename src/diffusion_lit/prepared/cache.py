"""Shards of object storage, on this machine's disk for as long as there is room."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from diffusion_lit.counted import memory
from diffusion_lit.extra import require
from diffusion_lit.files import UnwritableError, is_full, remove_leftovers, replacement
from diffusion_lit.prepared.shard import ShardInfo, check_shard

__all__ = ["ShardCache", "download"]

ATTEMPTS = 3


@dataclass(eq=False)
class ShardCache:
    """A folder that all processes of a machine share; least recently used shards are evicted when it is full.

    Sent to a loading process, it takes the environment along, where clients find credentials: that of a fork server is
    as old as the server.

    Args:
        url: URL of the prepared set.
        max_bytes: how large the folder may grow, without what is just being fetched.
        storage_options: for the storage's client.
    """

    url: str
    folder: Path
    max_bytes: int
    storage_options: Mapping[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "environment": dict(os.environ)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.environ.clear()
        os.environ.update(state.pop("environment"))
        self.__dict__.update(state)

    def check(self, needed: int) -> None:
        """Raise a ValueError if the folder cannot be written to, or cannot hold the bytes `needed` at a time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise ValueError(f"data.cache={self.folder} cannot be written to ({error}); use data.cache=DIR") from error
        if needed > self.max_bytes:
            raise ValueError(
                f"data.cache_gigabytes={self.max_bytes / 2**30:.3g} is too small: the shards in use at a time take "
                f"{needed / 2**30:.3g}. Raise it, lower data.num_lanes, or prepare with a smaller shard_megabytes"
            )
        room = shutil.disk_usage(self.folder).free + sum(self.sizes().values())
        if needed > room:
            raise ValueError(
                f"data.cache={self.folder} has room for {memory(room)}, and the shards in use at a time take "
                f"{memory(needed)}: make room, or name another folder, data.cache=DIR"
            )

    def sizes(self) -> dict[Path, int]:
        """Bytes of the shards that are cached, least recently used first."""
        used = []
        for path in self.folder.glob("*/*.bin"):
            with suppress(FileNotFoundError):  # another process has made room
                status = path.stat()
                used.append((status.st_mtime_ns, path, status.st_size))
        return {path: size for _, path, size in sorted(used)}

    def find(self, info: ShardInfo) -> Path:
        """A shard's file, fetched if it is not there and verified.

        Raises:
            FileNotFoundError: if the storage does not have it.
            ValueError: if it is damaged, the storage does not answer, or the disk is full.
        """
        path = self.folder / info.file
        if is_cached(path, info):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # others that want it wait
            if not is_cached(path, info):
                remove_leftovers(path.parent, path.name)  # whoever has left one had this lock
                try:
                    with ExitStack() as until_it_is_there, replacement(path) as partial:
                        download(f"{self.url}/{info.file}", partial, self.storage_options)
                        check_shard(partial, info, True, f"it came from {self.url}/{info.file}: upload it again")
                        until_it_is_there.enter_context(FileLock(self.folder / "lock"))
                        self.make_room(info.bytes)
                except UnwritableError as error:
                    raise ValueError(f"{error} (data.cache=DIR), and continue with resume=auto") from error
        return path

    def make_room(self, size: int) -> None:
        """Evict shards until `size` bytes more fit. Whoever still reads an evicted file can do so."""
        there = self.sizes()
        excess = sum(there.values()) + size - self.max_bytes
        for path, freed in there.items():
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= freed


def is_cached(path: Path, info: ShardInfo) -> bool:
    """Whether a shard's file is there and complete; it then counts as just used."""
    try:
        os.utime(path)
        return path.stat().st_size == info.bytes
    except FileNotFoundError:
        return False


CLIENTS = {"gs": ("google.cloud.storage", "google_storage"), "azure": ("azure.storage.blob", "azure_storage")}
"""What reading from these takes, and its extra; S3's client comes with litdata."""


def download(url: str, path: Path, storage_options: Mapping[str, Any]) -> None:
    """Fetch a file from object storage by litdata's clients, trying again after a fault.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if the storage does not answer, or refuses, or its client is not installed.
        OSError: if the disk is full.
    """
    scheme = url.partition("://")[0]
    if scheme in CLIENTS:
        require(*CLIENTS[scheme], f"{scheme}://")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fetch(url, path, storage_options)
            return
        except Exception as error:  # each client has errors of its own
            if is_full(error):
                raise
            status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(error, FileNotFoundError) or status == 404:
                raise FileNotFoundError(f"{url} is not there: is data.root right, and all of it uploaded?") from error
            if attempt == ATTEMPTS or status == 403:
                [reason, *_] = str(error).splitlines() or [""]
                raise ValueError(
                    f"{url} could not be fetched ({type(error).__name__}: {reason}). Check the network, this machine's "
                    "credentials and data.storage_options; resume training from the last checkpoint with resume=auto"
                ) from error
            time.sleep(2 * attempt)


def fetch(url: str, path: Path, storage_options: Mapping[str, Any]) -> None:
    scheme, _, rest = url.partition("://")
    if scheme == "s3":  # litdata's downloader refuses endpoints without TLS, which stores of one's own often are
        bucket, _, key = rest.partition("/")
        credentials = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        s3_client(tuple(storage_options.items()), credentials).download_file(bucket, key, str(path))
        return
    from litdata.streaming.downloader import get_downloader

    client = get_downloader(url.rpartition("/")[0], str(path.parent), [], dict(storage_options))
    client.download_file(url, str(path))


@cache
def s3_client(options: tuple[tuple[str, Any], ...], credentials: tuple[tuple[str, str], ...]) -> Any:
    """boto3's client, which threads may share, with the credentials that litdata finds; new ones have a new client."""
    from litdata.streaming.client import S3Client

    return S3Client(storage_options=dict(options)).client
