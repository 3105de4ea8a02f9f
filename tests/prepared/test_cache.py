"""Which shards a cache keeps, and what it does when the storage fails."""

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock, Timeout

from diffusion_lit.prepared import cache
from diffusion_lit.prepared.cache import ShardCache, download
from diffusion_lit.prepared.shard import ShardInfo

SIZE = 1000
URL = "s3://bucket/set/manifest.json"


@pytest.fixture
def shards(tmp_path: Path) -> tuple[ShardCache, list[ShardInfo]]:
    """A cache that two of three shards fill to the last byte."""
    infos = []
    for number in range(3):
        path = tmp_path / "set" / "train" / f"shard-{number:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * SIZE)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        infos.append(ShardInfo(f"train/{path.name}", 1, SIZE, sha256))
    return ShardCache(f"local:{tmp_path / 'set'}", tmp_path / "all" / "cache", 2 * SIZE, {}), infos


def fetched(shard_cache: ShardCache, *infos: ShardInfo) -> set[str]:
    """Fetch these in turn, a second after each other; the files that are then cached."""
    for second, info in enumerate(infos):
        path = shard_cache.find(info)
        assert path.stat().st_size == info.bytes
        os.utime(path, (second, second))
    return {f"train/{path.name}" for path in shard_cache.sizes()}


def test_the_shard_that_was_used_least_recently_makes_room(shards: tuple[ShardCache, list[ShardInfo]]) -> None:
    shard_cache, [a, b, c] = shards
    assert fetched(shard_cache, a, b) == {a.file, b.file}
    shard_cache.find(a)  # now b is the one that nobody used for longest
    assert fetched(shard_cache, c) == {a.file, c.file}
    assert list(shard_cache.sizes().values()) == [SIZE, SIZE]


def test_processes_make_room_one_at_a_time(
    shards: tuple[ShardCache, list[ShardInfo]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for its own shard, and until that is there: two that count the same free bytes would overfill the folder."""
    shard_cache, [a, *_] = shards
    rooms: list[int] = []

    def make_room(size: int) -> None:
        rooms.append(size)
        with pytest.raises(Timeout):
            FileLock(shard_cache.folder / "lock", timeout=0).acquire()

    monkeypatch.setattr(shard_cache, "make_room", make_room)
    assert fetched(shard_cache, a) == {a.file} and rooms == [SIZE]


def test_what_is_cached_counts_as_room(
    shards: tuple[ShardCache, list[ShardInfo]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_cache, [a, *_] = shards
    shard_cache.check(2 * SIZE)
    fetched(shard_cache, a)
    usage = shutil.disk_usage("/")._replace(free=SIZE)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    shard_cache.check(2 * SIZE)
    shard_cache.max_bytes += 1
    with pytest.raises(ValueError, match="make room"):
        shard_cache.check(2 * SIZE + 1)
    with pytest.raises(ValueError, match="too small"):
        shard_cache.check(2 * SIZE + 2)


def test_other_storage_is_read_by_litdata_s_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    client = SimpleNamespace(download_file=lambda *given: asked.append(given))
    monkeypatch.setattr("litdata.streaming.downloader.get_downloader", lambda *given: asked.append(given) or client)
    url, path = "gs://bucket/set/train/shard-00000.bin", tmp_path / "shard-00000.bin"
    cache.fetch(url, path, {"project": "p"})
    assert asked == [("gs://bucket/set/train", str(tmp_path), [], {"project": "p"}), (url, str(path))]


class AnswerError(Exception):
    """An HTTP status as boto's client raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}\nof a request")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("faults", "raised", "asked"),
    [
        ([TimeoutError("slow"), ConnectionError("reset")], None, 3),
        ([AnswerError(500)] * 3, r"could not be fetched \(AnswerError: status 500\)\. Check", 3),
        ([AnswerError(403)], "status 403", 1),
        ([AnswerError(404)], "is not there", 1),
        ([FileNotFoundError(2, "gone")], "is not there", 1),
        ([OSError(28, "No space left on device")], "No space left", 1),
        ([ValueError()] * 3, r"\(ValueError: \)", 3),
    ],
    ids=["passes", "lasts", "forbidden", "not found", "no file", "disk full", "silent"],
)
def test_a_fault_that_may_pass_is_waited_out(
    faults: list[Exception], raised: str | None, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times in all, 2 and 4 seconds after each other; what will not pass is said at once."""
    waits: list[float] = []
    calls: list[tuple[Any, ...]] = []

    def fetch(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) <= len(faults):
            raise faults[len(calls) - 1]

    monkeypatch.setattr(cache, "fetch", fetch)
    monkeypatch.setattr("time.sleep", waits.append)
    if raised is None:
        download(URL, tmp_path, {"a": 1})
    else:
        with pytest.raises((ValueError, OSError), match=raised):
            download(URL, tmp_path, {"a": 1})
    assert calls == [(URL, tmp_path, {"a": 1})] * asked and waits == [2, 4][: asked - 1]
