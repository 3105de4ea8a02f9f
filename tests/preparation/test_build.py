"""What is stored is what the images are; whatever ends the work, the same command completes it."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from diffusion_lit import files
from diffusion_lit.files import UnwritableError, checksum
from diffusion_lit.preparation.build import Plan, build
from diffusion_lit.preparation.maker import Job, Maker, Record
from diffusion_lit.preparation.settings import open_source
from diffusion_lit.preparation.workspace import REPORT, Workspace
from diffusion_lit.prepare import main
from diffusion_lit.prepared.manifest import MANIFEST, WORK, Manifest
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import FILTERS, Reading
from tests.launch import PATIENCE, Forked, holding
from tests.pictures import SIZE, named, pixels, png, prepare, reading, settings, stored, tree, write_folder, write_tar

FILES = named(24)
SHARD_BYTES = 5 * (3 * 8 * 8 + 20)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", FILES)


def maker(images: Path, out: Path, kind: type[Maker] = Maker) -> Maker:
    return kind(FolderSource(images, 0.2), reading(), "raw", None, out)


def times(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


# What is stored.


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("fit", ["center_crop", "resize"])
@pytest.mark.parametrize("resolution", [5, 8, 16])
def test_what_is_stored_is_pillow_s_resize(
    images: Path, tmp_path: Path, filter: str, fit: str, resolution: int
) -> None:
    source = FolderSource(images, 0.2)
    prepare(source, tmp_path / "out", fit=fit, filter=filter, resolution=resolution)
    (width, height), square = SIZE, (resolution, resolution)
    edge = (width - height) / 2
    box = (edge, 0, width - edge, height) if fit == "center_crop" else (0, 0, width, height)
    for split, entries in source.splits.items():
        found, labels = stored(tmp_path / "out", split)
        for entry, image in zip(entries, found, strict=True):
            original = Image.fromarray(pixels(int(Path(entry.name).stem)))
            expected = np.asarray(original.resize(square, FILTERS[filter], box=box))
            assert np.array_equal(image.transpose(1, 2, 0), expected), entry.name
        assert labels == [["cat", "dog", "emu"].index(entry.name[:3]) for entry in entries]


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_and_orientation_are_those_of_reading(tmp_path: Path, encoding: str, channels: int) -> None:
    """What reading does with them is tested where reading is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(pixels(0))
    for name, image in {
        "turned.jpg": picture,
        "grey.png": picture.convert("L"),
        "transparent.png": Image.merge("RGBA", [*picture.split(), picture.convert("L")]),
        "palette.gif": picture.convert("P"),
        "ink.tiff": picture.convert("CMYK"),
        "deep.png": Image.fromarray(np.arange(0, 2**16, 600, dtype=np.uint16)[:108].reshape(9, 12)),
    }.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        image.save(tmp_path / "in" / name, **({"exif": exif} if name == "turned.jpg" else {}))
    source = FolderSource(tmp_path / "in", 0.2)
    prepare(source, tmp_path / "out", encoding, channels=channels, fit="resize")
    for split, entries in source.splits.items():
        found, labels = stored(tmp_path / "out", split)
        assert labels is None and len(found) == len(entries)
        for entry, image in zip(entries, found, strict=True):
            expected = Reading(8, channels, "resize", "lanczos").read(tmp_path / "in" / entry.name)
            assert np.array_equal(image, expected.numpy()), entry.name


@pytest.mark.parametrize("channels", [1, 3])
def test_encodings(images: Path, tmp_path: Path, channels: int) -> None:
    made = {
        encoding: prepare(images, tmp_path / encoding, encoding, channels=channels, resolution=24)
        for encoding in ("raw", "png", "jpeg")
    }
    assert len({manifest.content_hash for manifest in made.values()}) == 1
    for split in ("train", "val", "test"):
        raw, labels = stored(tmp_path / "raw", split)
        assert raw.shape[1:] == (channels, 24, 24)
        png_, png_labels = stored(tmp_path / "png", split)
        assert np.array_equal(png_, raw) and png_labels == labels
        jpeg, jpeg_labels = stored(tmp_path / "jpeg", split)
        difference = np.abs(jpeg.astype(int) - raw.astype(int))
        assert jpeg_labels == labels and 0 < difference.mean() < 4  # levels, of noise at quality 95


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_litdata_reads_the_shards(images: Path, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An independent reader: the same bytes and classes, in the same order."""
    import litdata

    monkeypatch.setenv("HOME", str(tmp_path))
    prepare(images, tmp_path / "out", encoding)
    for split in ("train", "val", "test"):
        found, labels = stored(tmp_path / "out", split)
        dataset = litdata.StreamingDataset(str(tmp_path / "out" / split), shuffle=False, drop_last=False)
        items = [dataset[i] for i in range(len(dataset))]
        assert [label for _, label in items] == labels
        for (data, _), image in zip(items, found, strict=True):
            if encoding == "raw":
                assert data == image.tobytes()
            else:
                import io

                assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image.transpose(1, 2, 0))


def test_the_manifest_s_facts(images: Path, tmp_path: Path) -> None:
    (images / "emu" / "broken.png").write_bytes(b"no image")
    source = FolderSource(images, 0.2)
    made = prepare(source, tmp_path / "out", fit="resize", filter="box", max_unreadable=0.1)
    assert made == Manifest.load(tmp_path / "out" / MANIFEST)
    facts = (made.resolution, made.channels, made.encoding, made.fit, made.filter, made.source, made.num_unreadable)
    assert facts == (8, 3, "raw", "resize", "box", str(images), 1)
    assert made.class_names == ["cat", "dog", "emu"] and made.item_bytes == 3 * 8 * 8
    for name, split in made.splits.items():
        labels = [entry.label for entry in source.splits[name] if "broken" not in entry.name]
        assert split.count == len(labels) == sum(shard.count for shard in split.shards)
        assert split.class_counts == [labels.count(i) for i in range(3)]
        assert all(shard.count <= 5 for shard in split.shards)
        for shard in split.shards:
            path = tmp_path / "out" / shard.file
            assert shard.bytes == path.stat().st_size
            assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == checksum(path)
    there = {name for name, data in tree(tmp_path / "out").items() if data != "folder"}
    shards = {shard.file for split in made.splits.values() for shard in split.shards}
    assert there == shards | {MANIFEST, REPORT, "train/index.json", "val/index.json", "test/index.json"}


def content_of(images: Path, out: Path, **options: object) -> str:
    return prepare(images, out, **options).content_hash  # type: ignore[arg-type]


def test_the_content_hash_is_of_the_content_alone(images: Path, tmp_path: Path) -> None:
    expected = content_of(images, tmp_path / "0")
    assert content_of(images, tmp_path / "1", workers=2) == expected
    for number, size in enumerate((1, 7, 1000), 2):
        assert content_of(images, tmp_path / str(number), shard_images=size) == expected
    for path in images.rglob("*.png"):
        os.utime(path, (1, 1))
    images.rename(tmp_path / "moved")
    assert content_of(tmp_path / "moved", tmp_path / "5", encoding="png") == expected


def test_sets_that_were_prepared_before_are_found_and_are_the_same(tmp_path: Path) -> None:
    """Hashes computed by the first version; another plan would prepare everything again, or refuse the folder."""
    for i in range(24):
        path = tmp_path / "in" / ("cat", "dog", "emu")[i % 3] / f"{i:03d}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(i, (8, 8))).save(path)
        os.utime(path, (1, 1))
    made = build(Maker(FolderSource(tmp_path / "in", 0.2), reading(), "raw", None, tmp_path / "out"))
    assert made.content_hash == "c82314c65e5ad2ef5112d819549c7628abb554e8a987cb3bf37058a9e461c7b4"
    assert made.plan == "0e5879e094de5adb6a14a75e0e0b4a6390c3b0a6d222e1e018711db63bfefe47"


def test_workers_make_the_same_files(images: Path, tmp_path: Path) -> None:
    prepare(images, tmp_path / "1")
    prepare(images, tmp_path / "2", workers=2)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def change_a_pixel(images: Path) -> None:
    changed = pixels(3)
    changed[4, 6] ^= 128
    Image.fromarray(changed).save(images / "cat" / "003.png")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a pixel": change_a_pixel,
    "a label": lambda images: (images / "cat" / "003.png").rename(images / "dog" / "003.png"),
    "a class's name": lambda images: (images / "emu").rename(images / "fox"),
    "the order": lambda images: [
        (images / "cat" / name).write_bytes(png(seed)) for name, seed in (("003.png", 6), ("006.png", 3))
    ],
    "an image more": lambda images: (images / "cat" / "more.png").write_bytes(png(77)),
    "an image less": lambda images: (images / "cat" / "003.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_content_hash_changes_with(change: str, images: Path, tmp_path: Path) -> None:
    before = content_of(images, tmp_path / "before")
    CHANGES[change](images)
    assert content_of(images, tmp_path / "after") != before


@pytest.mark.parametrize("option", [{"resolution": 9}, {"channels": 1}, {"fit": "resize"}, {"filter": "box"}])
def test_the_content_hash_changes_with_the_reading(option: dict[str, object], images: Path, tmp_path: Path) -> None:
    assert content_of(images, tmp_path / "after", **option) != content_of(images, tmp_path / "before")


# Interrupted, and gone on with.


class Breaking(Maker):
    """Fails after `limit` shards."""

    limit = 0
    error: Exception = RuntimeError("stopped by the test")

    def __call__(self, job: Job) -> Record:
        if self.limit == 0:
            raise self.error
        self.limit -= 1
        return super().__call__(job)


class Counting(Maker):
    made: list[str]

    def __call__(self, job: Job) -> Record:
        self.made = [*getattr(self, "made", []), job.file]
        return super().__call__(job)


NUM_SHARDS = 6


@pytest.mark.parametrize("limit", range(NUM_SHARDS))
def test_finished_shards_are_not_made_again(limit: int, images: Path, tmp_path: Path) -> None:
    whole = maker(images, tmp_path / "whole")
    assert len(Plan(whole, SHARD_BYTES).jobs) == NUM_SHARDS
    build(whole, shard_bytes=SHARD_BYTES)
    broken = maker(images, tmp_path / "out", Breaking)
    assert isinstance(broken, Breaking)
    broken.limit = limit
    with pytest.raises(RuntimeError, match="stopped by the test"):
        build(broken, shard_bytes=SHARD_BYTES)
    assert not (tmp_path / "out" / MANIFEST).exists()
    before = {name: when for name, when in times(tmp_path / "out").items() if name.endswith(".bin")}
    assert len(before) == limit
    counting = maker(images, tmp_path / "out", Counting)
    assert isinstance(counting, Counting)
    build(counting, shard_bytes=SHARD_BYTES)
    assert len(counting.made) == NUM_SHARDS - limit and before.keys().isdisjoint(counting.made)
    assert before.items() <= times(tmp_path / "out").items()
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["shard gone", "shard cut short", "record cut short", "record gone"])
def test_what_is_not_whole_is_made_again(damage: str, images: Path, tmp_path: Path) -> None:
    build(maker(images, tmp_path / "whole"), shard_bytes=SHARD_BYTES)
    broken = maker(images, tmp_path / "out", Breaking)
    assert isinstance(broken, Breaking)
    broken.limit = 2
    with pytest.raises(RuntimeError):
        build(broken, shard_bytes=SHARD_BYTES)
    kind, what = damage.split(" ", 1)
    path = tmp_path / "out" / ("train/shard-00001.bin" if kind == "shard" else f"{WORK}/train-00001.json")
    if what == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    counting = maker(images, tmp_path / "out", Counting)
    assert isinstance(counting, Counting)
    build(counting, shard_bytes=SHARD_BYTES)
    assert len(counting.made) == NUM_SHARDS - 1 and "train/shard-00000.bin" not in counting.made
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_finished_set_is_left_alone(images: Path, tmp_path: Path) -> None:
    first = prepare(images, tmp_path / "out")
    before = times(tmp_path / "out")
    assert prepare(images, tmp_path / "out") == first
    assert times(tmp_path / "out") == before and not (tmp_path / "out" / WORK).exists()


def options_of(images: Path, out: Path, workers: int) -> list[str]:
    options = [f"source={images}", f"out={out}", "resolution=128", "encoding=raw", f"workers={workers}"]
    return [*options, "shard_megabytes=1", "val_fraction=0.05"]


def command(images: Path, out: Path, workers: int) -> Forked:
    """The command in a process group of its own, which says what it says in OUT.log.

    Once a shard is finished it writes no image more, and those that are being written stay so, until there is OUT.go.
    """

    def finished() -> bool:
        return any(out.glob(f"{WORK}/*.json"))

    with holding(Maker, "encode", finished, out.with_suffix(".go")), out.with_suffix(".log").open("w") as file:
        start = [sys.executable, "-m", "diffusion_lit.prepare", *options_of(images, out, workers)]
        return Forked(start, images.parent, dict(os.environ), file.fileno(), file.fileno(), own_group=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 images make 8 shards of 21 for training, at most."""
    return write_folder(tmp_path_factory.mktemp("many") / "in", {f"{i:03d}.png": png(i) for i in range(160)})


@pytest.fixture(scope="module")
def uninterrupted(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    build(Maker(FolderSource(many, 0.05), reading(128, max_pixels=100_000_000), "raw", None, out), shard_bytes=2**20)
    return out


def processes_in(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_killed_and_continued(
    many: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    process = command(many, out, 2)
    process.until(lambda: list(out.glob(f"{WORK}/*.json")) and list(out.glob("*/.*.partial")))
    workers = [pid for pid in processes_in(process.pid) if pid != process.pid]
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    kept = {name: when for name, when in times(out).items() if (out / WORK / f"{shard_name(name)}.json").exists()}
    assert kept and not (out / MANIFEST).exists()
    leftovers = ("manifest.json", "unreadable.txt", "val/index.json", f"{WORK}/plan", f"{WORK}/train-00003.json")
    for file in map(out.joinpath, leftovers):  # as a killed process may leave
        file.parent.mkdir(exist_ok=True)
        file.with_name(f".{file.name}.7.partial").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", *options_of(many, out, 2)])
    others = set(multiprocessing.active_children())  # of other tests
    main()
    printed = capsys.readouterr().out
    assert kept.items() <= times(out).items()
    assert Manifest.load(out / MANIFEST).content_hash == Manifest.load(uninterrupted / MANIFEST).content_hash in printed
    assert tree(out) == tree(uninterrupted)
    assert not processes_in(process.pid) and set(multiprocessing.active_children()) <= others


def shard_name(file: str) -> str:
    return file.replace("/shard-", "-").removesuffix(".bin")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 2), pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow)]
)
def test_asked_to_stop(number: signal.Signals, workers: int, many: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = command(many, out, workers)
    process.until(lambda: list(out.glob(f"{WORK}/*.json")) and list(out.glob("*/.*.partial")))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    out.with_suffix(".go").touch()
    assert process.wait(PATIENCE) == 128 + number
    mistakes = out.with_suffix(".log").read_text()
    assert f"stopped by {number.name}" in mistakes and "Continue with the same command" in mistakes
    assert "Traceback" not in mistakes and not processes_in(process.pid)
    assert not (out / MANIFEST).exists() and not list(out.glob("*/.*.partial"))
    kept = {name: when for name, when in times(out).items() if (out / WORK / f"{shard_name(name)}.json").exists()}
    assert kept
    source = FolderSource(many, 0.05)
    build(Maker(source, reading(128, max_pixels=100_000_000), "raw", None, out), shard_bytes=2**20)
    assert kept.items() <= times(out).items()
    assert tree(out) == tree(uninterrupted)


class Impatient(FileLock):  # type: ignore[misc]
    """Ten seconds are long for a test."""

    def acquire(self, timeout: float | None = None, **options: object) -> object:
        return super().acquire(timeout=0.2)


def test_a_second_process_is_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lit.preparation.workspace.FileLock", Impatient)
    out = tmp_path / "out"
    (out / WORK).mkdir(parents=True)
    with FileLock(out / WORK / "lock"), pytest.raises(ValueError) as caught:
        prepare(images, out)
    assert f"another process is preparing into {out}" in str(caught.value) and "out=" in str(caught.value)
    prepare(images, out)


def test_who_waits_for_another_finds_its_work_done(images: Path, tmp_path: Path) -> None:
    out, made = tmp_path / "out", []

    class Waited(Maker):
        def __call__(self, job: Job) -> Record:
            time.sleep(0.1)
            return super().__call__(job)

    first = threading.Thread(target=lambda: made.append(build(maker(images, out, Waited), shard_bytes=SHARD_BYTES)))
    first.start()
    while not (out / WORK / "train-00000.json").exists():
        time.sleep(0.01)
    second = maker(images, out, Counting)
    assert isinstance(second, Counting)
    assert build(second, shard_bytes=SHARD_BYTES) == Manifest.load(out / MANIFEST) and not hasattr(second, "made")
    first.join()
    assert made == [Manifest.load(out / MANIFEST)]


# The disk.


def test_all_of_a_set_is_on_the_disk_before_it_has_its_name(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest last: where there is one, all that it names is there."""
    out, flush, flushed = tmp_path / "out", files.flush, []
    (images / "cat" / "broken.png").write_bytes(b"none")

    def recorded(path: Path, mode: int) -> None:
        if path.is_file():
            flushed.append(str(path.with_name(files.final_name(path)).relative_to(out)))
        flush(path, mode)

    monkeypatch.setattr(files, "flush", recorded)
    manifest = prepare(images, out, max_unreadable=0.5)
    assert manifest.num_unreadable == 1 and flushed[0] == f"{WORK}/plan" and flushed[-1] == MANIFEST
    assert {name for name in flushed if not name.startswith(WORK)} == set(times(out))
    for shard in manifest.shards:
        assert flushed.index(shard.file) < flushed.index(f"{WORK}/{shard_name(shard.file)}.json")


@pytest.mark.parametrize("writing", ["manifest.json", "unreadable.txt", "train/shard-00000.bin", "val/index.json"])
def test_what_a_killed_process_left_is_ours(writing: str, images: Path, tmp_path: Path) -> None:
    """A set with other settings may take its place."""
    prepare(images, tmp_path / "out")
    file = tmp_path / "out" / writing
    file.with_name(f".{file.name}.7.partial").touch()
    prepare(images, tmp_path / "out", fit="resize", overwrite=True)
    prepare(images, tmp_path / "whole", fit="resize")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("after", [0, 3])
def test_a_disk_that_fills_up(
    number: int, after: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, replace = [after], Path.replace

    def full(source: Path, target: Path) -> Path:
        if target.suffix == ".bin":
            if not left[0]:
                raise OSError(number, os.strerror(number))
            left[0] -= 1
        return replace(source, target)

    out = tmp_path / "out"
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UnwritableError) as caught:
        prepare(images, out)
    for words in (str(out), "disk is full", "make room"):
        assert words in str(caught.value)
    monkeypatch.undo()
    assert not list(out.glob("*/.*.partial"))
    kept = {name: when for name, when in times(out).items() if name.endswith(".bin")}
    assert len(kept) == after
    manifest = prepare(images, out)
    assert kept.items() <= times(out).items()
    assert manifest.content_hash == content_of(images, tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_disk_that_fills_up(workers: int, images: Path, small_disk: Path) -> None:
    """Encoded images of unknown size cannot be counted beforehand."""
    out = small_disk / "out"
    (small_disk / "ballast").write_bytes(bytes(350 * 2**10))
    options = {"encoding": "png", "resolution": 64, "shard_images": 3, "workers": workers}
    with pytest.raises(ValueError, match="the disk is full"):
        prepare(images, out, **options)  # type: ignore[arg-type]
    (small_disk / "ballast").unlink()
    prepare(images, out, **options)  # type: ignore[arg-type]
    assert not list(out.glob("*/.*.partial")) and not (out / WORK).exists()


def test_too_little_room_is_reported_before_anything_is_made(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 24 * (3 * 8 * 8 + 20)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(ValueError) as caught:
        prepare(images, tmp_path / "out")
    for words in (str(tmp_path / "out"), "free", "needed", "out=", "resolution="):
        assert words in str(caught.value)
    assert not list((tmp_path / "out").glob("*/*.bin"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    prepare(images, tmp_path / "out")


# Images that cannot be read.


@pytest.fixture
def broken(images: Path) -> Path:
    """12 of 36 are broken."""
    for i in range(12):
        (images / "dog" / f"broken{i:02d}.png").write_bytes(b"no image" if i % 2 else png(i)[:80])
    return images


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_images_are_listed_and_left_out(workers: int, broken: Path, tmp_path: Path) -> None:
    manifest = prepare(broken, tmp_path / "out", max_unreadable=0.34, workers=workers)
    lines = [line.split("\t") for line in (tmp_path / "out" / REPORT).read_text().splitlines()]
    assert sorted(name for name, _ in lines) == [f"dog/broken{i:02d}.png" for i in range(12)]
    assert all(reason for _, reason in lines) and manifest.num_unreadable == 12
    assert sum(split.count for split in manifest.splits.values()) == 24
    for split in manifest.splits:
        found, _ = stored(tmp_path / "out", split)
        assert len(found) == manifest.splits[split].count
    for path in broken.rglob("broken*.png"):
        path.unlink()
    assert content_of(broken, tmp_path / "clean") == manifest.content_hash


def test_too_many_unreadable_images(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError) as caught:
        prepare(broken, out, max_unreadable=0.3, shard_images=100)
    message = str(caught.value)
    listed = [line for line in message.splitlines() if line.startswith("  dog/broken")]
    assert len(listed) == 10 and all(": " in line for line in listed) and "\n  ..." in message
    for words in (" of 36 images", "max_unreadable=0.3", str(out / REPORT), "raise max_unreadable"):
        assert words in message
    assert len((out / REPORT).read_text().splitlines()) >= 11 and not (out / MANIFEST).exists()
    with pytest.raises(ValueError, match=r"max_unreadable=0\.3"):
        prepare(broken, out, max_unreadable=0.3, shard_images=100)
    assert prepare(broken, out, max_unreadable=0.34, shard_images=100).num_unreadable == 12


def test_too_many_unreadable_images_in_the_last_shard_are_too_many_again(images: Path, tmp_path: Path) -> None:
    """By then all shards are finished, and nothing is left to do that could fail."""
    source = FolderSource(images, 0.2)
    (images / source.splits["test"][-1].name).write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(ValueError, match="1 of 24 images cannot be read"):
            prepare(images, tmp_path / "out", max_unreadable=0)


def test_a_split_of_which_nothing_can_be_read(images: Path, tmp_path: Path) -> None:
    for entry in FolderSource(images, 0.2).splits["val"]:
        (images / entry.name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"no image of the split val of .* can be read"):
        prepare(images, tmp_path / "out", max_unreadable=1.0)


# What is in the folder already.


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "train/0.png", "manifest.json", "unreadable.txt", ".hidden"])
def test_a_folder_of_something_else_is_refused(name: str, overwrite: bool, images: Path, tmp_path: Path) -> None:
    out = write_folder(tmp_path / "out", {name: b'{"start_url": "/"}'})
    before = tree(out)
    with pytest.raises(ValueError) as caught:
        prepare(images, out, overwrite=overwrite)
    assert f"{out} is not a prepared set, but not empty either (it has {name.split('/')[0]})" in str(caught.value)
    assert tree(out) == before


@pytest.mark.parametrize("name", ["thesis.txt", "train/0.png", "val/more/0.png", "shards/shard-00000.bin"])
@pytest.mark.parametrize("finished", [False, True])
def test_foreign_files_are_never_replaced(name: str, finished: bool, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if finished:
        prepare(images, out)
    else:
        with pytest.raises(RuntimeError):
            build(maker(images, out, Breaking), shard_bytes=SHARD_BYTES)
    write_folder(out, {name: b"mine"})
    before = tree(out)
    with pytest.raises(ValueError, match="has more in it than a prepared set") as caught:
        prepare(images, out, resolution=16, overwrite=True)
    assert name.split("/")[-1] in str(caught.value) or name.split("/")[0] in str(caught.value)
    assert tree(out) == before
    assert prepare(images, out).resolution == 8, "which stands in the way of nobody who goes on with it"


SETTINGS = [{"resolution": 9}, {"channels": 1}, {"fit": "resize"}, {"filter": "box"}, {"encoding": "png"}]


@pytest.mark.parametrize("changed", [*SETTINGS, {"shard_images": 7}])
@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_and_replace_when_asked(
    changed: dict[str, object], finished: bool, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if finished:
        prepare(images, out)
    else:
        broken = maker(images, out, Breaking)
        assert isinstance(broken, Breaking)
        broken.limit = 2
        with pytest.raises(RuntimeError):
            build(broken, shard_bytes=SHARD_BYTES)
    before = {name: data for name, data in tree(out).items() if not name.endswith("lock")}
    with pytest.raises(ValueError, match=r"other images or with other settings: .*overwrite=true"):
        prepare(images, out, **changed)  # type: ignore[arg-type]
    assert {name: data for name, data in tree(out).items() if not name.endswith("lock")} == before
    prepare(images, out, overwrite=True, **changed)  # type: ignore[arg-type]
    prepare(images, tmp_path / "fresh", **changed)  # type: ignore[arg-type]
    assert tree(out) == tree(tmp_path / "fresh")


@pytest.mark.parametrize("damaged", [False, True])
def test_a_refused_archive_leaves_nothing_in_a_finished_set(damaged: bool, images: Path, tmp_path: Path) -> None:
    """Where it was decompressed; unless another process is at work there, which may read it."""
    out, archive = tmp_path / "out", write_tar(tmp_path / "a.tar.gz", FILES | {"cat/more.png": png(99)}, "w:gz")
    prepare(images, out)
    if damaged:
        archive.write_bytes(archive.read_bytes()[:-20])
    before = tree(out)

    def attempt() -> None:
        with pytest.raises(
            ValueError, match="fetch it again" if damaged else "from other images or with other settings"
        ):
            prepare(open_source(settings(source=str(archive)), Workspace(out)), out)

    attempt()
    assert tree(out) == before
    (out / WORK).mkdir()
    with FileLock(out / WORK / "lock"):
        attempt()
        assert damaged or list((out / WORK).glob("*.tar"))


def test_other_images_are_refused(images: Path, tmp_path: Path) -> None:
    prepare(images, tmp_path / "out")
    (images / "cat" / "000.png").write_bytes(png(0) + b"x")
    with pytest.raises(ValueError, match="other images or with other settings"):
        prepare(images, tmp_path / "out")


def test_replacing_continues_after_an_interruption(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it ends while the old set is half removed."""
    out, rmtree = tmp_path / "out", shutil.rmtree
    prepare(images, out)

    def stop(path: Path, **options: object) -> None:
        if Path(path).name == "val":
            raise KeyboardInterrupt
        rmtree(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(images, out, resolution=9, overwrite=True)
    monkeypatch.undo()
    assert prepare(images, out, resolution=9, overwrite=True).resolution == 9


def test_the_source_cannot_be_the_set(images: Path) -> None:
    before = tree(images)
    with pytest.raises(ValueError, match="is not a prepared set, but not empty either"):
        prepare(images, images)
    assert tree(images) == before


# Workers.


class Deadly(FolderSource):
    """Its process is killed by one image, as for want of memory, once there is a shard in `out`."""

    killer = ""
    out: Path

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        if self.splits[split][index].name == self.killer:
            end = time.monotonic() + PATIENCE
            while not list(self.out.glob(f"{WORK}/*.json")) and time.monotonic() < end:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(split, index, reading)


def test_a_worker_that_is_killed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = Deadly(images, 0.2)
    source.killer, source.out = source.splits["train"][0].name, out
    with pytest.raises(ValueError) as caught:
        prepare(source, out, workers=2)
    for words in ("killed", "memory", "Finished shards are kept", "workers=1"):
        assert words in str(caught.value)
    kept = {name: when for name, when in times(out).items() if name.endswith(".bin")}
    assert kept
    source.killer = ""
    manifest = prepare(source, out, workers=2)
    assert kept.items() <= times(out).items()
    assert manifest.content_hash == content_of(images, tmp_path / "whole")
    assert not list(out.glob("*/.*.partial"))


def test_a_worker_s_fault_is_reported(images: Path, tmp_path: Path) -> None:
    broken = maker(images, tmp_path / "out", Breaking)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        build(broken, workers=2, shard_bytes=SHARD_BYTES)


def test_records_tell_all_of_a_shard(tmp_path: Path) -> None:
    record = Record(1, 2, "3", {"4": 5}, ["6"], [("7", "8")], {"9": 10})
    record.save(tmp_path / "record.json")
    assert json.loads((tmp_path / "record.json").read_text())["unreadable"] == [["7", "8"]]
    assert torch.tensor(Record.load(tmp_path / "record.json").bytes) == 2
