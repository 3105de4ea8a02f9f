"""What a whole run costs beside its bare steps: data, averages, guards, figures, the bar; and what starting costs.

    python benchmark/run_loop.py [--steps 60] [--repeats 3] [--device cpu]

A run of `python -m diffusion_lit.train` as it is, with validation, pictures and FID left out (they are work, and not
overhead), against the same network, loss and optimizer in a loop of six lines in the same process, on images that are
in memory: on the demo's digits, and on 32 x 32 colour images. Both take turns. The median counts: of bare steps, and
of a run's by tens, in each of which a point of the curves is logged. Beside it stands the peers' loss, where they are
installed: `Trainer` of denoising-diffusion-pytorch, which averages weights too. Start-up is of processes of their own,
the best of three.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from sides import GPU, alternate, command, ratio, table

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.condition import Condition
from diffusion_lit.data import ArrayImages, DigitsData, Images
from diffusion_lit.module import DiffusionModule
from diffusion_lit.picture.image import from_uint8
from diffusion_lit.training import train

WARM_UP = LOGGED = 10
"""Steps before the clock counts, and from one point of the curves to the next (`trainer.log_every_n_steps`)."""
TIMES: list[float] = []
"""When each step of the newest run began."""


class Clock(Callback):
    """Keeps when each step began."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        TIMES.append(time.perf_counter())


class ColourImages(DigitsData):
    """Noise instead of digits, larger and in colour."""

    def load(self) -> dict[str, Images]:
        images = torch.randint(256, (2048, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return {split: ArrayImages(images, torch.arange(2048) % 10) for split in ("train", "val", "test")}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.resolution, self.channels = 32, 3


def whole_run(options: Sequence[str], steps: int, device: str, bare: list[Callable[[], float]]) -> float:
    """Seconds of a step of a run; afterwards `bare` holds what times a bare step of the same parts."""
    TIMES.clear()
    with TemporaryDirectory() as folder:
        overrides = [
            *options,
            *(f"callback.{name}=null" for name in ("fid", "sample_grid", "dashboard")),
            *("+callback.clock._target_=run_loop.Clock", f"run_dir={folder}", f"trainer.max_steps={steps + WARM_UP}"),
            *("trainer.val_check_interval=1000000", "trainer.num_sanity_val_steps=0", "trainer.limit_val_batches=0"),
            *("callback.last_checkpoint.every_n_steps=1000000", "progress=plain", "lr_schedule=constant"),
            f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        ]
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            trainer = train(compose("train", overrides))
    assert isinstance(trainer, Trainer)
    if not bare:
        bare.append(bare_step(trainer.lightning_module, trainer.datamodule, device))  # type: ignore[attr-defined]
    marks = TIMES[WARM_UP::LOGGED]
    return median((b - a) / LOGGED for a, b in pairwise(marks))


def bare_step(module: Any, data: Any, device: str) -> Callable[[], float]:
    assert isinstance(module, DiffusionModule)
    module.to(device).train()
    part = data.splits["train"]
    labels = part.labels[: data.batch_size].to(device)
    pixels = part.images[: data.batch_size].to(device)
    optimizer = module.optimizer([*module.denoiser.parameters()])

    def step() -> None:
        loss = module.loss(module.denoiser, from_uint8(pixels), Condition(labels)).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def timed() -> float:
        seconds = []
        for _ in range(30):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return median(seconds)

    return timed


def loop_row(name: str, options: Sequence[str], args: argparse.Namespace) -> list[str]:
    bare: list[Callable[[], float]] = []
    whole_run(options, 2 * LOGGED, args.device, bare)  # builds the bare step, and warms up
    sides = {"run": lambda: whole_run(options, args.steps, args.device, bare), "bare": bare[0]}
    times = alternate(sides, args.repeats, warm_up=0)
    milliseconds = [f"{1000 * median(times[side]):.1f}" for side in sides]
    return [name, *milliseconds, ratio(times["run"], times["bare"])]


def peer_row(args: argparse.Namespace) -> list[str]:
    """denoising-diffusion-pytorch's `Trainer`, on image files as it takes them, against its model in a bare loop."""
    name = "denoising-diffusion-pytorch, 32 x 32"
    try:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from denoising_diffusion_pytorch import Trainer as TheirTrainer
    except ImportError:
        return [name, "not installed", "", ""]
    images = torch.randint(256, (512, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    diffusion = GaussianDiffusion(Unet(32, dim_mults=(1, 2, 2)), image_size=32).to(args.device)
    optimizer = torch.optim.Adam(diffusion.parameters(), 1e-4, betas=(0.9, 0.99))
    batch = images[:32].permute(0, 3, 1, 2).to(args.device) / 255

    def bare() -> float:
        start = time.perf_counter()
        for _ in range(args.steps):
            diffusion(batch).backward()
            torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return (time.perf_counter() - start) / args.steps

    with TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            Image.fromarray(image.numpy()).save(f"{folder}/{number}.png")
        options = {"train_batch_size": 32, "calculate_fid": False, "save_and_sample_every": 10**9}

        def run() -> float:
            steps = args.steps + WARM_UP
            trainer = TheirTrainer(
                diffusion, folder, train_num_steps=steps, results_folder=f"{folder}/results", **options
            )
            next(trainer.dl)  # its loading processes have started
            start = time.perf_counter()
            trainer.train()
            return (time.perf_counter() - start) / steps

        times = alternate({"run": run, "bare": bare}, args.repeats, warm_up=0)
    return [name, *(f"{1000 * median(times[side]):.1f}" for side in times), ratio(times["run"], times["bare"])]


def best_of(command: Sequence[str], times: int = 3) -> float:
    """Seconds of a process."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def start_up() -> str:
    python, rows = sys.executable, []
    for what, code in {
        "an empty program": "pass",
        "import diffusion_lit": "import diffusion_lit",
        "import torch": "import torch",
        "import diffusion_lit, with all that trains": "import diffusion_lit.training",
        "from diffusers import UNet2DModel, DDPMPipeline": "from diffusers import UNet2DModel, DDPMPipeline",
    }.items():
        rows.append([f"`{what}`" if "import " in what else what, f"{best_of([python, '-c', code]):.2f}"])
    rows.append(["`train --help`", f"{best_of([python, '-m', 'diffusion_lit.train', '--help']):.2f}"])
    with TemporaryDirectory() as folder:
        one = [f"hydra.run.dir={folder}/${{now:%H%M%S%f}}", "trainer.max_steps=1", "trainer.num_sanity_val_steps=0"]
        off = [f"callback.{name}=null" for name in ("fid", "sample_grid", "dashboard")]
        rows.append(["a run of one step", f"{best_of([python, '-m', 'diffusion_lit.train', *one, *off]):.2f}"])
    return table(["process", "seconds"], rows)


def report(args: argparse.Namespace) -> str:
    colour = ["data._target_=run_loop.ColourImages", "data.batch_size=32"]
    sets = {"digits, 8 x 8, the demo": ["data.batch_size=64"], "colour, 32 x 32": colour}
    rows = [*(loop_row(name, options, args) for name, options in sets.items()), peer_row(args)]
    head = ["what", "ms a step of a run", "ms of a bare step", "a run is slower by"]
    return "\n".join([table(head, rows), "", "Start-up:", "", start_up()])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=60 if GPU else 40, help="of each run, over 10")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if GPU else "cpu")


if __name__ == "__main__":
    command(__doc__, add_arguments, report)
