"""How long is a training step, against diffusers with the same network?

    python benchmark/step_time.py [--channels 64] [--batch-size 32] [--repeats 10]

DDPM's CIFAR-10 architecture on 32 x 32 colour images, at the same width in both: ours with `MSELoss`, theirs as in
diffusers' training example (`UNet2DModel`, `DDPMScheduler.add_noise`, mean squared error of eps), each with torch's
AdamW. The steps alternate, so that both see the same machine; the ratio of medians is what counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.loss import MSELoss
from diffusion_lit.model import UNet
from diffusion_lit.parameterization import EpsParameterization
from diffusion_lit.schedule import LinearSchedule
from diffusion_lit.weighting import UnitWeighting


def ours(channels: int, device: str) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    denoiser = Denoiser(UNet(32, 3, channels=channels), LinearSchedule(), EpsParameterization()).to(device)
    loss = MSELoss(UniformDensity(), UnitWeighting())
    return denoiser, lambda x_0: loss(denoiser, x_0).loss.mean()


def theirs(channels: int, device: str) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    network = UNet2DModel(
        sample_size=32,
        block_out_channels=(channels, 2 * channels, 2 * channels, 2 * channels),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=None,
    ).to(device)
    scheduler = DDPMScheduler()

    def loss(x_0: torch.Tensor) -> torch.Tensor:
        eps, t = torch.randn_like(x_0), torch.randint(0, 1000, (len(x_0),), device=x_0.device)
        return F.mse_loss(network(scheduler.add_noise(x_0, eps, t), t).sample, eps)

    return network, loss


def step_seconds(
    loss: Callable[[torch.Tensor], torch.Tensor], optimizer: torch.optim.Optimizer, x_0: torch.Tensor
) -> float:
    start = time.perf_counter()
    optimizer.zero_grad()
    loss(x_0).backward()
    optimizer.step()
    if x_0.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    x_0 = torch.rand(args.batch_size, 3, 32, 32, device=args.device) * 2 - 1
    sides = {"diffusion-lit": ours(args.channels, args.device), "diffusers": theirs(args.channels, args.device)}
    optimizers = {name: torch.optim.AdamW(module.parameters(), 1e-4) for name, (module, _) in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(args.repeats + 2):
        for name, (_, loss) in sides.items():
            elapsed = step_seconds(loss, optimizers[name], x_0)
            if repeat >= 2:  # the first two warm up
                seconds[name].append(elapsed)
    for name, (module, _) in sides.items():
        size = sum(p.numel() for p in module.parameters()) / 1e6
        print(f"{name:14s} {size:6.2f} M parameters   median step {1000 * statistics.median(seconds[name]):8.1f} ms")
    ratio = statistics.median(seconds["diffusers"]) / statistics.median(seconds["diffusion-lit"])
    print(f"diffusion-lit is {ratio:.2f} times as fast ({args.device}, float32, batch {args.batch_size})")


if __name__ == "__main__":
    main()
