"""Who learns to draw digits in `time_to_quality`: this project's recipe, and three others' documented ones.

    python benchmark/quality_sides.py SIDE FOLDER --minutes 5 --num-samples 2000 --calls 50 [KEY=VALUE ...]

`FOLDER/train.npz` is what a side is trained on, and `FOLDER/SIDE` gets `samples.npz` and `facts.json`. The budget is of
training alone: imports, models, files and loading processes are there before it begins, samples are drawn after it.

- `diffusion-lit`: `python -m diffusion_lit.train experiment=mnist_quick`, the whole command's training, with validation
  and pictures; drawn by the recipe's own sampler.
- `diffusers`: its example `train_unconditional.py` with the defaults of the script (its network, AdamW, 500 steps of
  warm-up into a cosine over 100 epochs, batches of 16) and `--use_ema`, as its README has it. To its favour the images
  are grey, in memory, and there is no pause for validation.
- `denoising-diffusion-pytorch`: `Unet`, `GaussianDiffusion` and `Trainer` of its README. To its favour digits are not
  mirrored, nothing is sampled or evaluated in between; mixed precision is on where there is a GPU.
- `smalldiffusion`: its example `fashion_mnist_unet.py` (its U-Net of 64 channels, log-linear noise levels, AdamW at
  7e-4, torch_ema's average). To its favour batches are of 64 images and not of 1,024, with which minutes on a processor
  would be a step or two; images are in memory, and not mirrored.

The first two of the others are drawn by DDIM in `--calls` network calls an image, of which they document more: 1,000
for diffusers' DDPM, 250 for denoising-diffusion-pytorch. smalldiffusion is drawn by its accelerated sampler in as many
calls, of which it documents 20.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.picture.image import from_uint8, save_image, save_npz, to_uint8

OURS, DIFFUSERS, LUCIDRAINS = "diffusion-lit", "diffusers", "denoising-diffusion-pytorch"
SMALL = "smalldiffusion"
SIDES = (OURS, DIFFUSERS, LUCIDRAINS, SMALL)
BATCH = 50
"""Images that are drawn at a time."""


@dataclass
class Trained:
    """A side after its time.

    Args:
        network: what it calls to draw.
        draw: a number of images, as uint8 [N, 1, H, W].
        steps, images, seconds: that it trained for.
    """

    network: nn.Module
    draw: Callable[[Sequence[int]], Tensor]
    steps: int
    images: int
    seconds: float


def shuffled(images: Tensor, size: int) -> Iterator[Tensor]:
    """Batches without end, every image once an epoch."""
    while True:
        for part in torch.randperm(len(images)).split(size):
            if len(part) == size:
                yield images[part]


def ours(images: Tensor, args: argparse.Namespace) -> Trained:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from diffusion_lit.checkpoint import load_denoiser
    from diffusion_lit.command_line.shell import quote
    from diffusion_lit.generate import generate

    run = args.folder / OURS / "run"
    given = [*recipe(args), f"trainer.max_minutes={args.minutes}", f"hydra.run.dir={quote(str(run))}", "progress=plain"]
    subprocess.run([sys.executable, "-m", "diffusion_lit.train", *given], check=True)
    denoiser, checkpoint = load_denoiser(run, device=args.device)
    sampler = instantiate(OmegaConf.create(checkpoint["config"]["sampler"]))
    budget = checkpoint["callbacks"]["Budget"]

    def draw(indices: Sequence[int]) -> Tensor:
        return generate(denoiser, sampler, indices, None, seed=1, device=args.device)

    return Trained(denoiser.network, draw, checkpoint["global_step"], budget["images"], 60 * budget["minutes"])


def recipe(args: argparse.Namespace) -> list[str]:
    """Our side's settings, without classes as the others', and what the command line adds."""
    return ["experiment=mnist_quick", f"seed={args.seed}", *args.overrides]


def diffusers(images: Tensor, args: argparse.Namespace) -> Trained:
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    network = UNet2DModel(
        sample_size=images.shape[-1],
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
    ).to(args.device)
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    batch_size, epochs = 16, 100
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = get_scheduler("cosine", optimizer, None, 500, -(-len(images) // batch_size) * epochs)
    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    batches, steps, begun = shuffled(images, batch_size), 0, time.monotonic()
    while time.monotonic() - begun < 60 * args.minutes:
        x_0 = from_uint8(next(batches).to(args.device))
        eps = torch.randn_like(x_0)
        t = torch.randint(0, 1000, (len(x_0),), device=x_0.device)
        F.mse_loss(network(noising.add_noise(x_0, eps, t), t).sample, eps).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        steps += 1
    seconds = time.monotonic() - begun
    average.copy_to(network.parameters())
    pipeline = DDIMPipeline(network.eval(), DDIMScheduler.from_config(noising.config))
    pipeline.set_progress_bar_config(disable=True)

    def draw(indices: Sequence[int]) -> Tensor:
        drawn = pipeline(batch_size=len(indices), num_inference_steps=args.calls, output_type="np").images
        return to_uint8(torch.from_numpy(drawn).permute(0, 3, 1, 2) * 2 - 1)

    return Trained(network, draw, steps, batch_size * steps, seconds)


def lucidrains(images: Tensor, args: argparse.Namespace) -> Trained:
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    class Timed(Trainer):  # type: ignore[misc]
        """Ends with the time, and not after a number of steps."""

        begun: float | None = None

        @property
        def train_num_steps(self) -> int:
            if self.begun is None:
                return 10**9
            return self.step if time.monotonic() - self.begun >= 60 * args.minutes else 10**9

        @train_num_steps.setter
        def train_num_steps(self, steps: int) -> None:
            """The constructor's."""

    unet = Unet(dim=64, dim_mults=(1, 2, 4, 8), flash_attn=True, channels=1)
    diffusion = GaussianDiffusion(
        unet, image_size=images.shape[-1], timesteps=1000, sampling_timesteps=min(args.calls, 1000)
    )
    with TemporaryDirectory() as place:
        for number, image in enumerate(images):
            save_image(image, Path(place) / f"{number}.png", flushed=False)
        trainer = Timed(
            diffusion,
            place,
            train_batch_size=32,
            train_lr=8e-5,
            gradient_accumulate_every=2,
            ema_decay=0.995,
            amp=torch.cuda.is_available(),
            augment_horizontal_flip=False,
            calculate_fid=False,
            save_and_sample_every=10**9,
            results_folder=str(args.folder / LUCIDRAINS / "results"),
        )
        next(trainer.dl)  # its loading processes have started
        trainer.begun = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - trainer.begun
    drawing = trainer.ema.ema_model.eval()

    def draw(indices: Sequence[int]) -> Tensor:
        return to_uint8(drawing.sample(batch_size=len(indices)) * 2 - 1)

    return Trained(drawing.model, draw, trainer.step, 64 * trainer.step, seconds)


def small(images: Tensor, args: argparse.Namespace) -> Trained:
    from accelerate import Accelerator
    from smalldiffusion import MappedDataset, Scaled, ScheduleLogLinear, Unet, samples, training_loop
    from torch.utils.data import DataLoader, TensorDataset
    from torch_ema import ExponentialMovingAverage

    accelerator = Accelerator(cpu=args.device == "cpu")
    without_labels = MappedDataset(TensorDataset(from_uint8(images)), lambda row: row[0])
    loader = DataLoader(without_labels, batch_size=64, shuffle=True)
    schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    side = images.shape[-1]
    network = Scaled(Unet)(side, 1, 1, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(side // 2,)).to(args.device)
    average = ExponentialMovingAverage(network.parameters(), decay=0.999)
    steps, seen, begun = 0, 0, time.monotonic()
    for state in training_loop(loader, network, schedule, accelerator, epochs=10**6, lr=7e-4):
        average.update()
        if time.monotonic() - begun >= 60 * args.minutes:
            break
        steps, seen = steps + 1, seen + len(state.x0)  # what it yields is before the step
    seconds = time.monotonic() - begun
    average.copy_to()

    def draw(indices: Sequence[int]) -> Tensor:
        levels = schedule.sample_sigmas(args.calls)
        *_, x_0 = samples(network, levels, gam=1.6, batchsize=len(indices), accelerator=accelerator)
        return to_uint8(x_0)

    return Trained(network, draw, steps, seen, seconds)


TRAIN: dict[str, Callable[[Tensor, argparse.Namespace], Trained]] = {
    OURS: ours,
    DIFFUSERS: diffusers,
    LUCIDRAINS: lucidrains,
    SMALL: small,
}


@torch.no_grad()
def drawn(side: Trained, count: int) -> tuple[Tensor, float]:
    """Images, uint8 [count, 1, H, W], and how often the network was called for each."""
    calls: list[int] = []
    hook = side.network.register_forward_hook(lambda network, inputs, output: calls.append(len(inputs[0])))
    images = torch.cat([side.draw(range(i, min(i + BATCH, count))).cpu() for i in range(0, count, BATCH)])
    hook.remove()
    return images, sum(calls) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", help="settings of our side, such as data.root=DIR")
    add_arguments(parser)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    pixels = np.load(args.folder / "train.npz")["arr_0"]
    trained = TRAIN[args.side](torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), args)
    images, calls = drawn(trained, args.num_samples)
    out = args.folder / args.side
    save_npz(images, None, out / "samples.npz")
    parameters = sum(p.numel() for p in trained.network.parameters())
    facts: dict[str, Any] = {"parameters": parameters, "steps": trained.steps, "images": trained.images}
    facts |= {"seconds": trained.seconds, "calls": calls}
    (out / "facts.json").write_text(json.dumps(facts))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=5.0, help="of training")
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=50, help="of the others' networks for each image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
