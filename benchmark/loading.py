"""How fast are images read, against torchvision's ImageFolder, webdataset and Hugging Face streaming?

    python benchmark/loading.py [--num-images 20000] [--resolutions 32 64] [--workers 1 2] [--epochs 3] [--work DIR]

The same images, crops of scikit-learn's photographs, as PNG files, in tar files, as parquet, and prepared. Each
loader gives shuffled batches of 128 as bytes [B, 3, H, W] with labels. The loaders take turns, an epoch each, so that
all see the same machine; the first epoch of each warms up, and the median of the others counts. `memmap` reads in the
training process (its default); how it fares behind loading processes, like the others, is told too. `remote` streams
through the shard cache, its first epoch fetching every shard. Memory is what all processes of a loader, mapped files
included, hold at the end of an epoch (proportional set size).
"""

import argparse
import contextlib
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from diffusion_lit.data import Batch, MemmapData, StreamData
from diffusion_lit.preparation.build import build
from diffusion_lit.preparation.maker import Maker
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading

BATCH = 128
CLASSES = 10


def write_images(folder: Path, count: int, resolution: int) -> None:
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    for i in range(count):
        photograph = photographs[i % 2]
        size = int(rng.integers(resolution, 4 * resolution))
        left, top = (int(rng.integers(0, side - size + 1)) for side in photograph.size)
        crop = photograph.crop((left, top, left + size, top + size)).resize((resolution, resolution))
        path = folder / "train" / f"class_{i % CLASSES}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path)
    for split in ("val", "test"):
        for c in range(CLASSES):
            (folder / split / f"class_{c}").mkdir(parents=True)
            photographs[0].resize((resolution, resolution)).save(folder / split / f"class_{c}" / "0.png")


def write_others(folder: Path, work: Path) -> None:
    """A tar file for each eighth of the images, and the same as parquet."""
    import datasets

    paths = sorted((folder / "train").glob("*/*.png"), key=lambda path: path.name)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(CLASSES)})
    (work / "tar").mkdir()
    for shard in range(8):
        part = paths[shard::8]
        with tarfile.open(work / "tar" / f"{shard}.tar", "w") as tar:
            for path in part:
                for name, data in (("png", path.read_bytes()), ("cls", path.parent.name[6:].encode())):
                    info = tarfile.TarInfo(f"{path.stem}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        rows = {
            "image": [{"bytes": path.read_bytes(), "path": None} for path in part],
            "label": [int(path.parent.name[6:]) for path in part],
        }
        datasets.Dataset.from_dict(rows, features).to_parquet(work / "parquet" / f"train-{shard}.parquet")


def image_folder(work: Path, workers: int) -> Iterable[Any]:
    data = ImageFolder(str(work / "folder" / "train"), PILToTensor())
    return DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True)


def webdataset(work: Path, workers: int) -> Iterable[Any]:
    import webdataset as wds

    urls = [str(path) for path in sorted((work / "tar").glob("*.tar"))]
    data = wds.WebDataset(urls, shardshuffle=8).shuffle(1000).decode("pil").to_tuple("png", "cls")
    batches = data.map_tuple(PILToTensor(), int).batched(BATCH, partial=False)
    return DataLoader(batches, batch_size=None, num_workers=workers, persistent_workers=True)


def hugging_face(work: Path, workers: int) -> Iterable[Any]:
    import datasets

    data = datasets.load_dataset(str(work / "parquet"), split="train", streaming=True).shuffle(seed=0, buffer_size=1000)
    return DataLoader(data.map(with_pixels).select_columns(["pixels", "label"]), BATCH, num_workers=workers)


def with_pixels(row: dict[str, Any]) -> dict[str, Any]:
    return {"pixels": PILToTensor()(row["image"]), "label": row["label"]}


def memmap(work: Path, workers: int) -> Iterable[Any]:
    return ready(MemmapData(str(work / "set"), batch_size=BATCH, num_workers=workers))


def stream(work: Path, workers: int) -> Iterable[Any]:
    return ready(StreamData(str(work / "set"), batch_size=BATCH, num_workers=workers))


def remote(work: Path, workers: int) -> Iterable[Any]:
    cache = str(work / f"cache_{workers}")
    return ready(StreamData(f"local:{work / 'set'}", cache=cache, batch_size=BATCH, num_workers=workers))


def ready(data: MemmapData | StreamData) -> Iterable[Any]:
    data.setup()
    return data.train_dataloader()


LOADERS = {
    "ImageFolder": image_folder,
    "webdataset": webdataset,
    "HF streaming": hugging_face,
    "stream": stream,
    "remote": remote,
    "memmap": memmap,
}


def count_images(batches: Iterable[Any]) -> int:
    return sum(map(num_images, batches))


def num_images(batch: Any) -> int:
    if isinstance(batch, Batch):
        return len(batch)
    return len(next(iter(batch.values())) if isinstance(batch, dict) else batch[0])


def memory() -> float:
    """MiB of this process and its children."""
    pids, total = [os.getpid()], 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += [int(child) for child in thread.read_text().split()]
    return total / 1024


def disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def compare(work: Path, workers: int, epochs: int) -> None:
    sides = {name: make(work, workers) for name, make in LOADERS.items()}
    sides["memmap, 0 workers"] = memmap(work, 0)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    held: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(epochs + 1):
        for name, loader in sides.items():
            start = time.perf_counter()
            count = count_images(loader)
            rates[name].append(count / (time.perf_counter() - start))
            held[name].append(memory())
    base = statistics.median(rates["ImageFolder"][1:])
    print(f"\n{workers} worker{'s'[: workers - 1]}{'':14}images/s   ratio   first epoch   MiB of all, by epoch")
    for name, measured in rates.items():
        rate = statistics.median(measured[1:])
        shown = " ".join(f"{mib:.0f}" for mib in held[name])
        print(f"{name:20s}{rate:12.0f}{rate / base:8.1f}{measured[0]:14.0f}   {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=20000)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None, help="a folder for the images; a temporary one otherwise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for resolution in args.resolutions:
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            work = Path(folder)
            write_images(work / "folder", args.num_images, resolution)
            write_others(work / "folder", work)
            reading = Reading(resolution, 3, "center_crop", "lanczos", 10**8)
            build(Maker(FolderSource(work / "folder", 0.05), reading, "raw", None, work / "set"), 2)
            print(f"\n{args.num_images} images of {resolution} x {resolution}; MiB on disk:", end=" ")
            names = {"folder": "folder", "tar": "webdataset", "parquet": "parquet", "set": "prepared"}
            print(", ".join(f"{name} {disk(work / path) / 2**20:.0f}" for path, name in names.items()))
            for workers in args.workers:
                compare(work, workers, args.epochs)


if __name__ == "__main__":
    main()
