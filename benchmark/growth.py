"""How a step grows with the image and the network, and how a start grows with the set.

    python benchmark/growth.py [--device cpu] [--resolutions 32 64 128 256] [--widths 24 64 128 224] [--picture FILE]

A step: DDPM's network, at 32 channels for images of growing size and at growing width for 32 x 32 images; seconds, the
median of `--repeats`, and the memory that it takes beside weights and optimizer, each in a process of its own; also as
curves where a picture is asked for.

A start: sets of 10^4, 10^6 and 10^8 images of 8 x 8 pixels as `data=memmap` reads them: a manifest with a shard for
each 10^5 images, and shards that are sparse files, full of zeros that take no disk. Measured are the time until the
first batch and the memory that it takes, as the only process and as the last of 64. The checksums, which the first
process of a machine computes once over all bytes, are left out (`data.verify=false`): that is reading, not starting.
"""

import argparse
import hashlib
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sides import GPU, Step, command, our_side, table
from step_time import resident, step_memory

from diffusion_lit.data import MemmapData
from diffusion_lit.prepared.manifest import Manifest, Split
from diffusion_lit.prepared.shard import ShardInfo

PER_SHARD = 100_000
SIDE = 8


def apart(function: Any, *args: Any) -> Any:
    """What a function answers in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


@dataclass
class Growth:
    """A step's cost.

    Args:
        channels, resolution: of the network.
        size: M parameters.
        seconds: of a step.
        mib: MiB an image, beside weights and optimizer.
    """

    channels: int
    resolution: int
    size: float
    seconds: float
    mib: float


def step_of(channels: int, resolution: int, batch_size: int, repeats: int, device: str) -> Growth:
    """Measure a step."""
    module, loss = our_side(channels, resolution)
    step = Step(module, loss, torch.rand(batch_size, 3, resolution, resolution, device=device) * 2 - 1)
    step()
    seconds = median(step() for _ in range(repeats))
    print(f"a step of {channels} channels at {resolution} pixels: {seconds:.2f} s", file=sys.stderr, flush=True)
    size = sum(p.numel() for p in module.parameters()) / 1e6
    return Growth(channels, resolution, size, seconds, step_memory(step) / batch_size)


def steps_table(args: argparse.Namespace) -> str:
    common = (args.batch_size, args.repeats, args.device)
    by_side = [apart(step_of, 32, resolution, *common) for resolution in args.resolutions]
    by_width = [apart(step_of, width, 32, *common) for width in args.widths]
    if args.picture:
        draw_curves(by_side, by_width, args)
    rows = []
    for g in (*by_side, *by_width):
        rows.append([str(g.channels), str(g.resolution), f"{g.size:.1f}", f"{1000 * g.seconds:.0f}"])
        rows[-1] += [f"{args.batch_size / g.seconds:.1f}", f"{g.mib:.1f}"]
    head = ["channels", "pixels a side", "M parameters", "ms a step", "images/s", "MiB an image"]
    return table(head, rows)


def draw_curves(by_side: list[Growth], by_width: list[Growth], args: argparse.Namespace) -> None:
    from matplotlib import pyplot as plt

    plt.rcParams["svg.fonttype"] = "none"  # text stays text, and the file small
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    curves = (("pixels a side", by_side, "resolution"), ("M parameters", by_width, "size"))
    for panel, (what, found, field) in zip(axes, curves, strict=True):
        x, memory = [getattr(g, field) for g in found], panel.twinx()
        panel.loglog(x, [1000 * g.seconds / args.batch_size for g in found], "o-", color="tab:blue")
        memory.loglog(x, [g.mib for g in found], "s--", color="tab:orange")
        panel.set_xlabel(what)
        panel.set_xticks(x, [f"{value:.3g}" for value in x])
        panel.minorticks_off()
        panel.set_ylabel("ms an image", color="tab:blue")
        memory.set_ylabel("MiB an image", color="tab:orange")
    figure.savefig(args.picture, metadata={"Date": None})
    plt.close(figure)


def write_set(folder: Path, count: int) -> None:
    """A prepared set that is read like any other, whose pixels are zeros that take no disk."""
    (folder / "train").mkdir(parents=True)
    shards = []
    for number, begin in enumerate(range(0, count, PER_SHARD)):
        images = min(PER_SHARD, count - begin)
        name, table_bytes, stride = f"train/shard-{number:05d}.bin", 4 * (images + 2), SIDE * SIDE + 16
        offsets = table_bytes + stride * np.arange(images + 1)
        with (folder / name).open("wb") as file:
            file.write(np.array([images, *offsets], "<u4").tobytes())
            file.truncate(int(offsets[-1]))
        shards.append(ShardInfo(name, images, int(offsets[-1]), hashlib.sha256().hexdigest()))
    split = Split(count, [count], shards)
    digest = hashlib.sha256(str(count).encode()).hexdigest()
    facts = {"resolution": SIDE, "channels": 1, "encoding": "raw", "class_names": ["zero"], "source": "zeros"}
    rest = {"fit": "none", "filter": "none", "num_unreadable": 0, "plan": digest, "content_hash": digest}
    Manifest(**facts, **rest, splits={"train": split}).save(folder)  # type: ignore[arg-type]


def first_batch(folder: str, world_size: int) -> tuple[float, float]:
    """Seconds until the last of so many processes has its first batch, and the MiB that it has taken for it."""
    before, start = resident("VmRSS"), time.perf_counter()
    data = MemmapData(folder, batch_size=64, verify=False)
    ranks = {"global_rank": world_size - 1, "local_rank": 1, "world_size": world_size}
    data.trainer = SimpleNamespace(accumulate_grad_batches=1, **ranks)  # type: ignore[assignment]
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert len(batch) == 64
    return time.perf_counter() - start, resident("VmHWM") - before


def starts_table(args: argparse.Namespace) -> str:
    rows = []
    with TemporaryDirectory() as folder:
        for exponent in (4, 6, 8):
            root = Path(folder) / str(exponent)
            write_set(root, 10**exponent)
            for world_size in (1, 64):
                seconds, mib = apart(first_batch, str(root), world_size)
                rows.append([f"10^{exponent}", str(world_size), f"{seconds:.2f}", f"{mib:.0f}"])
    return table(["images", "processes", "seconds to the first batch", "MiB"], rows)


def report(args: argparse.Namespace) -> str:
    return "\n".join(
        [
            f"A step of {args.batch_size} images (float32), by the image's side and by the network's width:",
            *("", steps_table(args), "", "A start, by the size of the set:", "", starts_table(args)),
        ]
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--widths", type=int, nargs="+", default=[24, 64, 128, 224])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="where curves of a step's cost are drawn, an SVG file")
    parser.add_argument("--device", default="cuda" if GPU else "cpu")


if __name__ == "__main__":
    command(__doc__, add_arguments, report)
