"""Damaged and altered files: a right answer or a mistake named in our own words, soon, and no file elsewhere."""

import copy
import io
import json
import random
import signal
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.data.webdataset import TarShards
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.prepared.manifest import Manifest
from diffusion_lit.prepared.reader import PreparedImages
from diffusion_lit.source.image_file import Reading, is_image
from diffusion_lit.source.label_file import read_labels
from diffusion_lit.trust.plain import read_yaml
from tests.data.prepared_set import SIZE, prepare, write_folder
from tests.pictures import pixels, png, rotated_jpeg
from tests.strangers import checkpoint, payloads, saved

MISTAKES = (ValueError, FileNotFoundError)
AMOUNTS = [pytest.param(1, id="default"), pytest.param(40, id="long", marks=pytest.mark.slow)]
VALUES = [None, True, -1, 0, 1, 3, 1.5, float("nan"), float("inf"), "", "x", "é\x1b", "${x}", "???", [], {}, [-1], [[]]]


@pytest.fixture(autouse=True)
def at_an_end() -> Iterator[None]:
    """Nothing may hang."""

    def stop(*_: object) -> None:
        pytest.fail("it does not come to an end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Every file lies in `in`; one beside it would be an escape."""
    (tmp_path / "in").mkdir()
    yield tmp_path / "mark"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Each container in `value`, and each key in it."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield value, key
        yield from places(part)


def altered(value: Any, generator: random.Random, strange: list[Any]) -> Any:
    """A copy with something else at a few places, or without them."""
    value = copy.deepcopy(value)
    for _ in range(generator.randint(1, 2)):
        container, key = generator.choice(list(places(value)))
        if generator.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(generator.choice(strange))
    return value


def damaged(data: bytes, generator: random.Random) -> bytes:
    """Bytes changed where most is decided, near the ends, or anywhere; cut, or repeated."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        span = generator.choice([len(changed), min(len(changed), 2000)])
        at = generator.randrange(span) if generator.random() < 0.5 else len(changed) - 1 - generator.randrange(span)
        changed[at] = generator.randrange(256)
    if generator.random() < 0.2:
        del changed[generator.randrange(len(changed)) :]
    if generator.random() < 0.1:
        at = generator.randrange(len(changed) + 1)
        changed[at:at] = changed[:100]
    return bytes(changed)


def refusals(tries: int, attempt: Callable[[random.Random], None], check: Callable[[], object]) -> int:
    """How many of so many alterations are refused; any other error than a user's mistake is a fault."""
    refused = 0
    for seed in range(tries):
        attempt(random.Random(seed))
        try:
            check()
        except MISTAKES as error:
            assert str(error) and "pytorch.org" not in str(error), seed  # where torch's own advice leads
            refused += 1
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
    return refused


@pytest.mark.parametrize("amount", AMOUNTS)
def test_checkpoints(amount: int, tmp_path: Path, mark: Path) -> None:
    file, good = tmp_path / "in" / "x.ckpt", checkpoint()
    del good["ema"]
    strange = [*VALUES, *payloads(tmp_path / "in", mark).values(), torch.zeros(2), b"x", {1: 2}, (1,)]
    whole, small = saved(good), {"config": {"denoiser": good["config"]["denoiser"]}, "class_names": ["a"]}

    def load() -> None:
        denoiser, found = load_denoiser(file, "raw")
        assert type(denoiser) is Denoiser and isinstance(found["config"], dict)

    def alter(generator: random.Random) -> None:
        value: dict[Any, Any] = good | altered(small, generator, strange)
        if generator.random() < 0.3:
            value[generator.choice([*good, 3, None, "ema"])] = generator.choice(strange)
        file.write_bytes(saved(value))

    assert 12 * amount < refusals(25 * amount, alter, load) < 25 * amount
    assert refusals(25 * amount, lambda generator: file.write_bytes(damaged(whole, generator)), load) > 6 * amount


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("amount", AMOUNTS)
def test_prepared_sets(amount: int, encoding: str, tmp_path: Path, mark: Path) -> None:
    write_folder(tmp_path / "in" / "folder", 16)
    out = prepare(tmp_path / "in" / "folder", tmp_path / "in" / "set", encoding=encoding)
    path = out / "manifest.json"
    whole, facts = path.read_bytes(), json.loads(path.read_text())
    strange = [*VALUES, *payloads(tmp_path / "in", mark).values(), "../../mark", 2**40, -(2**70)]

    def read() -> None:
        manifest = Manifest.load(path)
        for split in manifest.splits:
            images = PreparedImages(manifest, split, lambda shard: out / shard.file)
            found, labels = images.fetch(list(range(len(images))))
            assert found.shape == (manifest.splits[split].count, 3, SIZE, SIZE)
            assert labels is None or len(labels) == len(found)

    tries = 100 * amount
    assert refusals(tries, lambda g: path.write_text(json.dumps(altered(facts, g, strange))), read) > tries // 2
    assert refusals(tries, lambda generator: path.write_bytes(damaged(whole, generator)), read) > tries // 2
    path.write_bytes(whole)
    shard = out / "train" / "shard-00000.bin"
    contents = shard.read_bytes()

    def damage(generator: random.Random) -> None:
        data = damaged(contents, generator)
        shard.write_bytes(data[: len(contents)].ljust(len(contents), b"\0") if generator.random() < 0.8 else data)

    assert refusals(tries, damage, read) > tries // 4


@pytest.mark.parametrize("amount", AMOUNTS)
def test_settings_of_runs(amount: int, tmp_path: Path, mark: Path) -> None:
    file = tmp_path / "in" / "config.yaml"
    text = b"data: {root: x, batch_size: 64}\nmodel:\n  channels: 8\n  dropout: 0.0\n  multipliers: [1, 2]\nseed: 0\n"
    strange = (
        b"!!python/object/apply:os.system [touch mark]",
        b"&a",
        b"*a",
        b"<<:",
        b"${oc.env:HOME}",
        b"[",
        b"\0",
        b"-",
    )

    def alter(generator: random.Random) -> None:
        data, at = bytearray(damaged(text, generator)), generator.randrange(len(text))
        data[at:at] = generator.choice(strange)
        file.write_bytes(data)

    assert refusals(200 * amount, alter, lambda: read_yaml(file)) > 50 * amount


@pytest.mark.parametrize("name", ["labels.csv", "metadata.jsonl"])
@pytest.mark.parametrize("amount", AMOUNTS)
def test_files_of_labels(amount: int, name: str) -> None:
    rows = [{"file_name": f"{i}.png", "label": "ab"[i % 2]} for i in range(20)]
    lines = [",".join(row.values()) for row in rows] if name == "labels.csv" else list(map(json.dumps, rows))
    text = "\n".join(["file_name,label", *lines] if name == "labels.csv" else lines).encode()
    current = ""

    def alter(generator: random.Random) -> None:
        nonlocal current
        current = damaged(text, generator).decode(errors="replace")
        if generator.random() < 0.1:
            current += "\n" + "[" * 5000

    refusals(200 * amount, alter, lambda: read_labels(current, name))


@pytest.mark.parametrize("amount", AMOUNTS)
def test_shards_of_webdataset(amount: int, tmp_path: Path, mark: Path) -> None:
    file, buffer = tmp_path / "in" / "x.tar", io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i in range(6):
            for suffix, data in (("png", png(i)), ("json", b'{"label": 1}'), ("pickle", b"cos\nsystem\n")):
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    whole = buffer.getvalue()

    def read() -> None:
        for sample in TarShards([str(file)], "png", 3).read(0):
            assert sample.label is not None and 0 <= sample.label < 3

    assert refusals(100 * amount, lambda generator: file.write_bytes(damaged(whole, generator)), read) > 20 * amount


def avif() -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(0)).save(file, "avif")
    return file.getvalue()


def deflated_tiff() -> bytes:
    file = io.BytesIO()
    bands = np.random.default_rng(0).integers(0, 256, (9, 12, 5), dtype=np.uint8)
    tifffile.imwrite(file, bands, photometric="minisblack", planarconfig="contig", compression="zlib")
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, pixels(0))
    return file.getvalue()


IMAGES = {
    "png": (png(0), 3),
    "jpeg": (rotated_jpeg({256: (3, 12), 282: (3, 72), 296: (3, 2), 531: (3, 1)}), 3),
    "avif": (avif(), 3),
    "tiff": (deflated_tiff(), 5),
    "npy": (npy(), 3),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("amount", AMOUNTS)
def test_images(amount: int, kind: str) -> None:
    whole, channels = IMAGES[kind]
    reading, current = Reading(8, channels, max_pixels=10**5), whole

    def alter(generator: random.Random) -> None:
        nonlocal current
        current = damaged(whole, generator)

    def read() -> None:
        is_image(io.BytesIO(current))
        assert reading.read(io.BytesIO(current), kind).shape == (channels, 8, 8)

    read()
    assert refusals(150 * amount, alter, read) > 10 * amount
