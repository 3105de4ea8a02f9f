"""Prepared sets in object storage: every shard fetched once, in time, verified, and kept within bounds."""

import os
import pickle
import shutil
import time
from collections import Counter
from functools import partial
from itertools import islice, product
from multiprocessing.forkserver import ensure_running, set_forkserver_preload
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lit import files
from diffusion_lit.data import StreamData, order
from diffusion_lit.data.computed_shard_order import ComputedShardOrder
from diffusion_lit.data.order import TrainingOrder, permute_shards
from diffusion_lit.prepared.cache import ShardCache
from tests.data.prepared_set import data_module, numbers, prepare, write_folder
from tests.data.s3_server import s3_server
from tests.launch import PATIENCE
from tests.repeats import slow_but

NUM_IMAGES = 64
PER_SHARD = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stream")
    prepare(write_folder(root / "folder", NUM_IMAGES, num_held_out=4), root / "set", PER_SHARD)
    return root


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The set, to be damaged."""
    shutil.copytree(root / "set", tmp_path / "set")
    return tmp_path


def visited(data: StreamData) -> list[int]:
    data.setup()
    return [image for batch in data.train_dataloader() for image in numbers(batch.images)]


# The order.


@pytest.fixture(params=["table", "computed"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an epoch's order is kept, or computed as that of a large set."""
    monkeypatch.setattr(order, "MAX_TABLE", 2**22 if request.param == "table" else 0)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 3), st.integers(0, 3))
def test_an_order_of_shards_is_a_permutation(sizes: list[int], num_lanes: int, seed: int, epoch: int) -> None:
    """A computed one walks through the same shards, and orders the images of each in its own way."""
    table, computed = permute_shards(sizes, num_lanes, seed, epoch), ComputedShardOrder(sizes, num_lanes, seed, epoch)
    assert torch.equal(table[:], permute_shards(sizes, num_lanes, seed, epoch)[:])
    for found in (table[:], computed[:]):
        assert sorted(found.tolist()) == list(range(sum(sizes)))
    of_image = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    assert torch.equal(of_image[table[:]], of_image[computed[:]])
    assert torch.equal(computed[1:7:2], computed[:][1:7:2]) and len(computed) == sum(sizes)


@pytest.mark.usefixtures("kept")
def test_few_shards_are_being_read_at_a_time() -> None:
    """From its first image to its last, a shard is open; with equal shards no more than the lanes are, and one more."""
    sizes, num_lanes = [50] * 24, 6
    homes = torch.div(permute_shards(sizes, num_lanes, 0, 0)[:], 50, rounding_mode="floor")
    spans = [(int(where[0]), int(where[-1])) for shard in range(24) for where in [torch.nonzero(homes == shard)[:, 0]]]
    for place in range(len(homes)):
        assert sum(first <= place <= last for first, last in spans) <= num_lanes + 1
    assert len({tuple(permute_shards(sizes, num_lanes, 0, epoch)[:].tolist()) for epoch in range(5)}) == 5
    mixed = [len(set(homes[i : i + num_lanes].tolist())) for i in range(0, len(homes) - num_lanes, num_lanes)]
    assert sum(mixed) / len(mixed) > 0.9 * num_lanes, "neighbours come from different shards"


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_read_shards_of_their_own(world_size: int) -> None:
    shares = [set((permute_shards([50] * 24, 6, 0, 0)[rank::world_size] // 50).tolist()) for rank in range(world_size)]
    assert not set.intersection(*shares)


def test_images_of_a_shard_are_equally_likely_at_its_places() -> None:
    """Chi squared of the images at the first place of a shard of five, over 100 epochs: within 5 sigma."""
    first = [ComputedShardOrder([5, 5, 5], 1, 0, epoch)[:] for epoch in range(100)]
    counts = torch.bincount(torch.stack([images[images < 5][0] for images in first]), minlength=5)
    assert ((counts - 20).double().square() / 20).sum() < 4 + 5 * (2 * 4) ** 0.5
    alike = sum(torch.equal(images[images < 5], images[images >= 10] - 10) for images in first)
    assert alike < 10, "shards have orders of their own"


def test_an_order_of_a_hundred_million_streamed_images_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 64 processes, in the middle of an epoch: no table of images, each image in one share, few shards at a time."""
    randperm = torch.randperm
    monkeypatch.setattr(
        torch, "randperm", lambda n, **options: randperm(n, **options) if n <= 10**4 else pytest.fail("a table")
    )
    permutation, seen = partial(permute_shards, [10**4] * 10**4, 64), set()
    for rank in range(0, 64, 9):
        training = TrainingOrder(10**8, 32, 0, rank, 64, permutation)
        training.resume(3, 64 * 32 * 1000)
        images = [image for batch in islice(training, 2) for _, image in batch]
        assert len({image // 10**4 for image in images}) <= 2
        seen |= set(images)
    assert len(seen) == 8 * 64


@pytest.mark.usefixtures("kept")
def test_prefetching_takes_the_images_that_it_is_asked_for(root: Path, tmp_path: Path) -> None:
    """From storage as from a folder, on two processes, resumed in the middle of an epoch."""
    orders = []
    for kind in ("remote", "stream"):
        for rank in range(2):
            training = data_module(kind, root, rank, 2, num_lanes=2, batch_size=3, cache=str(tmp_path)).training_order()
            training.resume(1, 12)
            orders.append(list(training))
    assert orders[0] == orders[2] and orders[1] == orders[3] and orders[0] and orders[0] != orders[1]


# The storage.


def test_s3_is_read_through_its_own_client(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shard is fetched once, by whichever process needs it first; further epochs and runs fetch nothing.

    All of them with today's credentials, which the server that loading processes are forked from has not seen. Those
    fetch what validation reads; in training the main process is ahead of them.
    """
    set_forkserver_preload(["diffusion_lit.data"])
    ensure_running()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    shutil.copytree(root / "set", tmp_path / "s3" / "bucket" / "deep" / "set")
    with s3_server(tmp_path / "s3") as (address, asked):
        options: dict[str, Any] = {
            "cache": str(tmp_path / "cache"),
            "storage_options": {"endpoint_url": address},
            "batch_size": 4,
            "num_lanes": 2,
        }
        data = StreamData("s3://bucket/deep/set", num_workers=1, **options)
        assert sorted(visited(data)) == list(range(NUM_IMAGES))
        assert sorted(visited(data)) == list(range(NUM_IMAGES))
        again = StreamData("s3://bucket/deep/set/", num_workers=0, **options)
        assert sorted(visited(again)) == list(range(NUM_IMAGES))
        assert sum(len(batch.images) for batch in data.val_dataloader()) == 4
        once = ["manifest.json", *(f"train/shard-{i:05d}.bin" for i in range(8)), "val/shard-00000.bin"]
        expected = Counter(("us-east-1", f"deep/set/{key}") for key in ["manifest.json", *once])
        assert Counter(asked) == expected
        asked.clear()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
        data = StreamData("s3://bucket/deep/set", num_workers=1, **options | {"cache": str(tmp_path / "other")})
        assert sorted(visited(data)) == list(range(NUM_IMAGES))
        assert sum(len(batch.images) for batch in data.val_dataloader()) == 4
        assert Counter(asked) == {("another", f"deep/set/{key}"): 1 for key in once}
        with pytest.raises(FileNotFoundError, match=r"s3://bucket/nowhere/manifest\.json is not there"):
            StreamData("s3://bucket/nowhere", **options)
    monkeypatch.setattr("time.sleep", lambda _: None)
    options["storage_options"] = {"endpoint_url": "http://127.0.0.1:9"}  # where nobody listens
    with pytest.raises(ValueError, match=r"could not be fetched.*credentials.*data\.storage_options"):
        StreamData("s3://bucket/deep/set", **options)


def test_a_loading_process_takes_the_environment_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there any more is gone there too."""
    environment, sent = dict(os.environ), pickle.dumps(ShardCache("s3://bucket", tmp_path, 1, {}))
    monkeypatch.setenv("AWS_PROFILE", "yesterday")
    assert pickle.loads(sent).folder == tmp_path
    assert dict(os.environ) == environment


# The cache.


def cached(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.bin"))


def test_the_cache_stays_within_its_bounds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of four shards serves an epoch of eight; each is on the disk before it has its name."""
    flushed, flush = [], files.flush
    monkeypatch.setattr(files, "flush", lambda path, mode: (flushed.append(files.final_name(path)), flush(path, mode)))
    shard = (root / "set" / "train" / "shard-00000.bin").stat().st_size
    data = data_module("remote", root, num_lanes=2, ahead=1, cache=str(root / "small"), batch_size=4)
    assert isinstance(data, StreamData)
    data.shard_cache.max_bytes = 4 * shard
    data.check()
    for name in (".shard-00003.bin.7.partial", ".shard-00005.bin.7.partial.0aF4b6"):  # of a process that was killed
        (data.shard_cache.folder / "train").mkdir(exist_ok=True)
        (data.shard_cache.folder / "train" / name).touch()
    seen = []
    for batch in data.train_dataloader():
        seen += numbers(batch.images)
        assert cached(root / "small") <= 4 * shard
    assert sorted(seen) == list(range(NUM_IMAGES)) and cached(root / "small") > 2 * shard
    assert not list((root / "small").rglob("*.partial*"))
    assert {f"shard-{i:05d}.bin" for i in range(8)} <= set(flushed)


def test_shards_are_fetched_before_they_are_needed(root: Path, tmp_path: Path) -> None:
    """After the first step, what the next steps need is there, fetched by the order and not by the reader."""
    data = data_module("remote", root, num_lanes=1, ahead=2, cache=str(tmp_path), batch_size=4)
    order = data.training_order()
    batches = iter(order)
    next(batches)
    deadline = time.monotonic() + PATIENCE
    while len(list(tmp_path.rglob("*.bin"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    batches.close()  # type: ignore[attr-defined]  # fetches no more
    there = {int(path.stem.rpartition("-")[2]) for path in tmp_path.rglob("*.bin")}
    homes = {index // PER_SHARD for batch in list(order)[:5] for _, index in batch}
    assert homes <= there and len(there) == 3


def test_a_cache_that_cannot_work_is_reported_before_training(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    url = f"local:{root / 'set'}"
    with pytest.raises(ValueError, match=r"data\.cache=.*cannot be written to.*data\.cache=DIR"):
        StreamData(url, cache=str(tmp_path / "file")).setup()
    with pytest.raises(ValueError, match=r"data\.cache_gigabytes=.*too small.*lower data\.num_lanes"):
        StreamData(url, cache=str(tmp_path / "a"), cache_gigabytes=1e-6).setup()
    usage = shutil.disk_usage(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(ValueError, match=r"has room for .* MiB.*make room"):
            StreamData(url, cache=str(tmp_path / "b")).setup()


def test_a_cache_on_a_full_disk_is_named(root: Path, tmp_path: Path) -> None:
    data = data_module("remote", root, cache=str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("diffusion_lit.prepared.cache.fetch", full)
        with pytest.raises(ValueError, match=r"the disk is full.*\(data\.cache=DIR\), and continue with resume=auto"):
            data.splits["train"].fetch([0])


def test_two_sets_share_a_cache_folder(root: Path, tmp_path: Path) -> None:
    prepare(write_folder(tmp_path / "folder", 20), tmp_path / "set", per_shard=5)
    for place, count in ((root, NUM_IMAGES), (tmp_path, 20), (root, NUM_IMAGES)):
        data = data_module("remote", place, cache=str(tmp_path / "cache"), batch_size=1)
        assert sorted(visited(data)) == list(range(count))  # type: ignore[arg-type]


# Faults.


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


FAULTS = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "truncated"),
    "a byte flipped": (flip_a_byte, "damaged"),
    "missing": (lambda path: path.unlink(), "missing|not there"),
}


@pytest.mark.parametrize("kind", ["memmap", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_is_reported_before_training(copy: Path, kind: str, fault: str) -> None:
    damage, words = FAULTS[fault]
    path = copy / "set" / "train" / "shard-00003.bin"
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        data_module(kind, copy)
    assert str(path) in str(caught.value) and "copy it again" in str(caught.value)


@pytest.mark.parametrize("kind", ["memmap", "stream"])
def test_verify_false_looks_at_sizes_only(copy: Path, kind: str) -> None:
    flip_a_byte(copy / "set" / "train" / "shard-00003.bin")
    data_module(kind, copy, verify=False)
    with pytest.raises(ValueError, match="damaged"):
        data_module(kind, copy)


@pytest.mark.parametrize(
    ("fault", "num_workers"),
    slow_but([(fault, 0) for fault in FAULTS], product(FAULTS, (0, 2))),
)
def test_damaged_storage_is_reported_when_the_shard_comes(
    copy: Path, fault: str, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is skipped, nothing hangs, what is damaged does not stay in the cache; mended, it goes on."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    damage, words = FAULTS[fault]
    path = copy / "set" / "train" / "shard-00003.bin"
    whole = path.read_bytes()
    damage(path)
    data = data_module("remote", copy, batch_size=4, num_workers=num_workers)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        list(data.train_dataloader())
    assert "shard-00003.bin" in str(caught.value)
    assert not list((copy / "cache").rglob("shard-00003.bin"))
    path.write_bytes(whole)
    assert sorted(visited(data)) == list(range(NUM_IMAGES))  # type: ignore[arg-type]


def test_a_shard_that_goes_missing_in_the_middle_is_named(copy: Path) -> None:
    data = data_module("memmap", copy)
    (copy / "set" / "train" / "shard-00003.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00003\.bin is missing; copy it again"):
        data.splits["train"].fetch(list(range(NUM_IMAGES)))


def test_a_truncated_cache_is_fetched_again(root: Path, tmp_path: Path) -> None:
    data = data_module("remote", root, cache=str(tmp_path), batch_size=4)
    assert sorted(visited(data)) == list(range(NUM_IMAGES))  # type: ignore[arg-type]
    for path in tmp_path.rglob("*.bin"):
        path.write_bytes(b"cut")
    again = data_module("remote", root, cache=str(tmp_path), batch_size=4)
    assert sorted(visited(again)) == list(range(NUM_IMAGES))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_encoded_shards_give_the_same_images(root: Path, tmp_path: Path, encoding: str) -> None:
    prepare(root / "folder", tmp_path / "set", PER_SHARD, encoding)
    images, labels = data_module("stream", tmp_path).splits["train"].fetch([5, 60, 5, 0])
    expected, expected_labels = data_module("image_folder", root).splits["train"].fetch([5, 60, 5, 0])
    # A folder is read class by class, as a set is prepared.
    assert torch.equal(images, expected) and labels is not None and torch.equal(labels, expected_labels)  # type: ignore[arg-type]


def test_mistakes_are_named(root: Path, tmp_path: Path) -> None:
    prepare(root / "folder", tmp_path / "set", encoding="png")
    with pytest.raises(ValueError, match=r"png files.*data=stream"):
        data_module("memmap", tmp_path)
    with pytest.raises(ValueError, match=r"data\.root=DIR"):
        StreamData(None)
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json: make a prepared set with"):
        StreamData(str(root / "folder"))
    (tmp_path / "half" / ".prepare").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="not prepared to the end: run the same"):
        StreamData(str(tmp_path / "half"))
    manifest = tmp_path / "set" / "manifest.json"
    text = manifest.read_text()
    for broken, words in ((text[:100], "damaged"), (text.replace("diffusion-lit 1", "other"), "format 'other'")):
        manifest.write_text(broken)
        with pytest.raises(ValueError, match=words):
            StreamData(str(tmp_path / "set"))
    for option in ({"num_lanes": 0}, {"ahead": -1}):
        with pytest.raises(ValueError, match=f"data.{next(iter(option))} must be at least"):
            StreamData(str(root / "set"), **option)
