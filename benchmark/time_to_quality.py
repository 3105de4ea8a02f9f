"""How good are images of digits after five minutes of training, against others' documented recipes on the same machine?

    python benchmark/time_to_quality.py [data.root=DIR] [--minutes 5] [--threads 2] [--quick]
        [--sides diffusion-lit diffusers denoising-diffusion-pytorch smalldiffusion]

Each side (see `quality_sides`) learns MNIST, padded to 32 x 32, without classes, for the same wall-clock time, in a
process of its own and one after the other; then draws, outside of that time, and is compared with the training images:
Frechet distance and KID of the features of `feature=classifier`, which was trained on the labels, and of
`feature=random_vgg`. As many held-out digits, drawn by nobody, show what is left for a perfect model. A side that the
folder has already is not trained again, so that sides can be added or left out, and the pictures of 64 images stand
beside the figures. `--quick` takes seconds of training and 100 images: it shows that all of it runs, and nothing else.

denoising-diffusion-pytorch, and smalldiffusion with torch-ema, take part where they are installed. Nothing else should
run on the machine; the load is said.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from quality_sides import DIFFUSERS, LUCIDRAINS, OURS, SIDES, SMALL, recipe
from quality_sides import add_arguments as add_budget
from sides import command, table
from torch import Tensor

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.picture.grid import image_grid
from diffusion_lit.picture.image import save_image, save_npz

MODULES = {
    OURS: ("diffusion_lit",),
    DIFFUSERS: ("diffusers",),
    LUCIDRAINS: ("denoising_diffusion_pytorch",),
    SMALL: ("smalldiffusion", "torch_ema"),
}
HELD_OUT = "held-out digits"
FEATURES = ("classifier", "random_vgg")
HERE = Path(__file__).parent


def digits(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """The images that our side's settings train on, and as many of the test images as are drawn."""
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        data: Any = instantiate(compose("train", recipe(args)).data)
    data.prepare_data()
    data.setup()
    return data.splits["train"].images, data.splits["test"].images[: args.num_samples]


def on_these_threads(args: argparse.Namespace) -> dict[str, str]:
    """The environment of each side."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    return {**os.environ, **hidden, "OMP_NUM_THREADS": str(args.threads)}


def trained(side: str, args: argparse.Namespace) -> dict[str, Any]:
    """A side's facts; it is trained, and draws, unless the folder has them."""
    file = args.folder / side / "facts.json"
    asked = {name: getattr(args, name) for name in ("minutes", "num_samples", "calls", "seed", "device", "threads")}
    asked |= {"overrides": args.overrides} if side == OURS else {}
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        load = os.getloadavg()[0]
        given = [f"--{name}={getattr(args, name.replace('-', '_'))}" for name in ("minutes", "calls", "seed", "device")]
        given += [f"--num-samples={args.num_samples}", side, str(args.folder), *args.overrides]
        subprocess.run([sys.executable, str(HERE / "quality_sides.py"), *given], check=True, env=on_these_threads(args))
        file.write_text(json.dumps({**json.loads(file.read_text()), "load": load, "asked": asked}))
    facts = json.loads(file.read_text())
    if facts["asked"] != asked:
        raise ValueError(f"{file.parent} was made with {facts['asked']}, not {asked}: choose another --folder")
    return facts


def figures(side: str, args: argparse.Namespace) -> list[float]:
    """Frechet distance and KID by each feature, by the command that anybody has."""
    found = []
    for feature in FEATURES:
        out = args.folder / side / feature
        given = [f"ckpt={args.folder / OURS / 'run'}", f"samples={args.folder / side / 'samples.npz'}"]
        given += [f"out={out}", f"feature={feature}", "metrics=[fid,kid]", "floor=false", "progress=none", "pairs=0"]
        given += [f"metrics.kid.subset_size={min(1000, args.num_samples // 2)}", f"device={args.device}"]
        if args.quick and feature == "classifier":
            given.append("feature.num_images=2000")
        evaluate = [sys.executable, "-m", "diffusion_lit.evaluate", *given]
        subprocess.run(evaluate, check=True, env=on_these_threads(args), stdout=subprocess.DEVNULL)
        [result] = json.loads((out / "evaluation.json").read_text())["results"]
        found += [result["figures"][name]["value"] for name in ("fid", "kid")]
    return found


def picture(side: str, args: argparse.Namespace) -> Path:
    path = args.folder / f"{side.replace(' ', '_')}.png"
    pixels = np.load(args.folder / side / "samples.npz")["arr_0"][:64]
    save_image(image_grid(torch.from_numpy(pixels).permute(0, 3, 1, 2), 8), path)
    return path


def report(args: argparse.Namespace) -> str:
    if args.quick:
        args.minutes, args.num_samples, args.calls = 0.05, 100, 2
        args.overrides += ["callback.fid=null", "callback.sample_grid=null", "sampler.num_steps=2"]
    sides = [side for side in args.sides if all(importlib.util.find_spec(module) for module in MODULES[side])]
    training, held_out = digits(args)
    for name in (*sides, HELD_OUT):
        (args.folder / name).mkdir(parents=True, exist_ok=True)
    save_npz(training, None, args.folder / "train.npz")
    save_npz(held_out, None, args.folder / HELD_OUT / "samples.npz")
    facts = {side: trained(side, args) for side in sides}
    found = {side: figures(side, args) for side in (*sides, HELD_OUT)}
    head = ["", "M parameters", "steps", "images seen", "minutes", "load before", "calls an image"]
    head += [f"{metric}, {feature}" for feature in FEATURES for metric in ("Frechet", "KID")]
    rows = []
    for side in found:
        f = facts.get(side)
        cells = [""] * 6
        if f is not None:
            cells = [f"{f['parameters'] / 1e6:.2f}", str(f["steps"]), str(f["images"]), f"{f['seconds'] / 60:.2f}"]
            cells += [f"{f['load']:.1f}", f"{f['calls']:.0f}"]
        rows.append([side, *cells, *(f"{value:.4g}" for value in found[side])])
    lines = [table(head, rows), "", f"{args.num_samples} images of each, on {args.device}, {args.threads} threads."]
    if others := [side for side in sides if side != OURS]:
        for i, feature in enumerate(FEATURES):
            best = min(others, key=lambda side: found[side][2 * i])
            ratio = found[best][2 * i] / found[OURS][2 * i]
            lines.append(f"By {feature}, the best of the others ({best}) has {ratio:.1f} times our Frechet distance.")
    lines += [f"Not installed: {side}." for side in args.sides if side not in sides]
    return "\n".join([*lines, *(str(picture(side, args)) for side in found)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="settings of our side, such as data.root=DIR")
    add_budget(parser)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=Path("outputs/time_to_quality"))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="of which ours is one")
    parser.add_argument("--quick", action="store_true")


if __name__ == "__main__":
    command(__doc__, add_arguments, report)
