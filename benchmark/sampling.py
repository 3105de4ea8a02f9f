"""How fast are many images drawn: in bfloat16 against float32, and against diffusers with an equal network?

    python benchmark/sampling.py [--num-samples 64] [--num-steps 20] [--channels 64] [--batch-size 16] [--rounds 4]

DDPM's CIFAR-10 architecture on 32 x 32 colour images, drawn by DDIM: ours by `drawing.draw`, as `sample` does, and
diffusers' `UNet2DModel` of the same width and depth by its `DDIMScheduler`, in the loop of its `DDIMPipeline` (which
itself fails in bfloat16 when it makes an array); each in float32 and in bfloat16. The images are drawn in rounds, in
which the sides alternate and begin in turn, so that all see the same machine; a ratio is the median of the rounds'
ratios. On a processor ours draws 16 at a time, filled up where there are fewer, so that image i is the same in any
batch: other batches, or fewer images a round, are no comparison there. Noise, arithmetic and the way to bytes are
timed, files are not. How much the process has grown over the rounds is printed too: it must not depend on the number of
images.

bfloat16 is fast where the processor multiplies it (AVX-512 BF16, AMX, GPUs); elsewhere it is left out by default.
Both networks are measured once more after torch has compiled them, ours as `compile=true` of `sample` does, with the
seconds that this takes; `--ways plain` leaves that out.
"""

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from diffusers import DDIMScheduler
from sides import (
    DIFFUSERS,
    GPU,
    OURS,
    alternate,
    command,
    multiplies_bfloat16,
    our_network,
    ratio,
    table,
    their_network,
)

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.drawing import draw
from diffusion_lit.generate import Setup, walk_size
from diffusion_lit.parameterization import EpsParameterization
from diffusion_lit.precision import compile_networks, run_network_in
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.schedule import LinearSchedule

DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16}
PLAIN, COMPILED = WAYS = ("plain", "compiled")

Side = Callable[[int], None]
"""Draws so many images."""


def ours(args: argparse.Namespace, precision: str, way: str) -> Side:
    denoiser = Denoiser(our_network(args.channels), LinearSchedule(), EpsParameterization()).to(args.device).eval()
    run_network_in(denoiser, precision)
    if way == COMPILED:
        compile_networks([denoiser], denoiser, walk_size(args.device, args.batch_size), args.device)
    setup = Setup(denoiser, DDIMSampler(args.num_steps), None, None, args.device, 0, precision)

    def side(count: int) -> None:
        for _ in draw(setup, range(count), None, 0, args.batch_size):
            pass

    return side


def theirs(args: argparse.Namespace, precision: str, way: str) -> Side:
    network, scheduler = their_network(args.channels).eval().to(args.device, DTYPES[precision]), DDIMScheduler()
    if way == COMPILED:
        network.compile()
    scheduler.set_timesteps(args.num_steps)

    @torch.no_grad()
    def side(count: int) -> None:
        for first in range(0, count, args.batch_size):
            shape = (min(args.batch_size, count - first), 3, 32, 32)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(first)).to(args.device, DTYPES[precision])
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample
            (x / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()

    return side


def seconds(side: Side, count: int) -> float:
    start = time.perf_counter()
    side(count)  # which ends with images on the host
    return time.perf_counter() - start


def report(args: argparse.Namespace) -> str:
    makers = {OURS: ours, DIFFUSERS: theirs}
    kinds = list(product(args.precisions, args.ways))
    count = args.num_samples // args.rounds
    sides, first = {}, {}
    for kind in kinds:
        for name, make in makers.items():
            start = time.perf_counter()
            side = make(args, *kind)
            side(min(args.batch_size, args.num_samples))  # warms up
            first[name, *kind] = time.perf_counter() - start
            sides[name, *kind] = partial(seconds, side, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = alternate(sides, args.rounds, warm_up=0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    rows = []
    for precision, way in kinds:
        rates = [f"{count * args.rounds / sum(times[name, precision, way]):.2f}" for name in makers]
        against = [times[DIFFUSERS, precision, other] for other in args.ways]
        ratios = [ratio(peer, times[OURS, precision, way]) for peer in against]
        begun = ", ".join(f"{first[name, precision, way]:.0f}" for name in makers)
        rows.append([precision, way, *rates, *ratios, begun])
    found = [f"the process grew by {grown:.0f} MiB over {args.num_samples} images a side."]
    if len(args.precisions) == len(DTYPES):
        half = ratio(*(times[OURS, precision, args.ways[0]] for precision in DTYPES))
        found.insert(0, f"bfloat16 is faster than float32 by {half}")
    head = ["precision", "networks", "ours, images/s", "diffusers, images/s"]
    head += [f"ours, times as fast as {DIFFUSERS}, {way}" for way in args.ways]
    head.append("seconds to the first batch, ours and theirs")
    size = sum(p.numel() for p in our_network(args.channels).parameters()) / 1e6
    walk = walk_size(args.device, args.batch_size)
    own = "" if walk == min(args.batch_size, count) else f", ours of {walk}"
    return "\n".join(
        [
            f"{size:.1f} M parameters, {args.num_steps} steps of DDIM, batches of {args.batch_size}{own} "
            f"({torch.get_num_threads()} threads).",
            *("", table(head, rows), ""),
            "; ".join(found),
        ]
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-samples", type=int, default=1000 if GPU else 64)
    parser.add_argument("--num-steps", type=int, default=50 if GPU else 20)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=50 if GPU else 16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cuda" if GPU else "cpu")
    precisions = list(DTYPES) if multiplies_bfloat16() else ["32-true"]
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=precisions)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)


if __name__ == "__main__":
    command(__doc__, add_arguments, report)
