"""How long is a training step, where does its time go, and how much memory does it take, against diffusers?

    python benchmark/step_time.py [--channels 64] [--batch-size 32] [--repeats 10] [--device cpu] [--compile]

The same network on both sides (see `sides`), 32 x 32 colour images, torch's AdamW: ours with `MSELoss`, theirs as in
diffusers' training example. Steps alternate; what counts is the ratio of a round's two steps, as its median and the
middle half of the rounds. The peak is that of the network's own 3 x 3 convolutions, forward, timed alone; the share of
it is MFU, 1 where a step were nothing but these convolutions at their best.
"""

import argparse
import ctypes
import multiprocessing
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from sides import DIFFUSERS, OURS, Step, alternate, command, our_network, our_side, ratio, table, their_side
from torch.profiler import ProfilerActivity, profile

from diffusion_lit.callback.throughput import flops_of
from diffusion_lit.execution import Execution

KINDS = {
    "convolution": "convolutions",
    "group_norm": "GroupNorm",
    "attention": "attention and matrices",
    "softmax": "attention and matrices",
    "bmm": "attention and matrices",
    "mm": "attention and matrices",
    "silu": "SiLU",
    "copy_": "copies and casts",
    "cat": "copies and casts",
    "optimizer": "optimizer",
    "foreach": "optimizer",
    "adam": "optimizer",
}
"""By a part of an operation's name, the first that fits; the rest is other element-wise work and Python."""
REST = "the rest"


def images(args: argparse.Namespace) -> torch.Tensor:
    return torch.rand(args.batch_size, 3, 32, 32, device=args.device) * 2 - 1


def make(side: str, args: argparse.Namespace, precision: str = "float32", heads: str = "equal") -> Step:
    torch.manual_seed(0)
    module, loss = our_side(args.channels) if side == OURS else their_side(args.channels, heads=heads)
    step = Step(module, loss, images(args), precision)
    if args.compile and side == OURS:
        Execution(compile=True).apply(module.network, torch.device(args.device))  # type: ignore[union-attr,arg-type]
    elif args.compile:
        module.compile()
    return step


def peak_flops(args: argparse.Namespace, precision: str) -> float:
    """Floating-point operations a second of the level at half the resolution, where most of a step's are."""
    dtype, width = torch.float32 if precision == "float32" else torch.bfloat16, 2 * args.channels
    x = torch.randn(args.batch_size, width, 16, 16, device=args.device, dtype=dtype)
    weight = torch.randn(width, width, 3, 3, device=args.device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        if x.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * x.numel() * weight[0].numel() / best


def kind_of(name: str) -> str:
    lowered = name.lower()
    return next((kind for part, kind in KINDS.items() if part in lowered), REST)


def shares(step: Step) -> dict[str, float]:
    """Of the time of a step, by kind of operation."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if step.x_0.is_cuda else [])]
    step()
    with profile(activities=activities) as profiler:
        step()
    totals: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        own = event.self_device_time_total if step.x_0.is_cuda else event.self_cpu_time_total
        totals[kind_of(event.key)] += own
    return {kind: time / sum(totals.values()) for kind, time in totals.items()}


def step_memory(step: Step) -> float:
    """MiB that a step needs beside the network, its gradients and its optimizer's state, all of which there are."""
    if step.x_0.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what earlier steps have left behind goes back to the system
    held_mib = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    step()
    return resident("VmHWM") - held_mib


def take_memory(side: str, args: argparse.Namespace, answer: "multiprocessing.Queue[float]") -> None:
    step = make(side, args)
    step()
    answer.put(step_memory(step))


def resident(what: str) -> float:
    """MiB of this process: now (VmRSS), or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def memory_of(side: str, args: argparse.Namespace) -> float:
    """In a process of its own, whose memory is nobody else's."""
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(target=take_memory, args=(side, args, answer))
    process.start()
    taken = answer.get()
    process.join()
    return taken


def report(args: argparse.Namespace) -> str:
    flops = flops_of(our_network(args.channels)) * args.batch_size
    rows, lines = [], []
    for precision in args.precisions:
        peak = peak_flops(args, precision)
        for heads in ("equal", "default"):
            sides = {OURS: make(OURS, args, precision), DIFFUSERS: make(DIFFUSERS, args, precision, heads)}
            times = alternate(sides, args.repeats)
            ours, theirs = (median(times[name]) for name in (OURS, DIFFUSERS))
            mfu = f"{flops / ours / peak:.2f}, {flops / theirs / peak:.2f}"
            faster = ratio(times[DIFFUSERS], times[OURS])
            rows.append([precision, heads, f"{1000 * ours:.0f}", f"{1000 * theirs:.0f}", faster, mfu])
        lines.append(f"{precision}: the convolutions alone reach {peak / 1e9:,.0f} GFLOP/s.")
    head = ["precision", "heads", "ours, ms", "diffusers, ms", "ours is faster by", "MFU, ours and theirs"]
    size = sum(p.numel() for p in our_network(args.channels).parameters()) / 1e6
    parts = {name: shares(make(name, args)) for name in (OURS, DIFFUSERS)}
    kinds = sorted({*parts[OURS], *parts[DIFFUSERS]}, key=lambda kind: -parts[OURS].get(kind, 0))
    where = [[kind, *(f"{100 * parts[name].get(kind, 0):.0f} %" for name in parts)] for kind in kinds]
    taken = {name: memory_of(name, args) for name in parts}
    return "\n".join(
        [
            f"{size:.1f} M parameters, {args.batch_size} images a step{', compiled' if args.compile else ''}.",
            *("", table(head, rows), "", *lines, ""),
            *("Where the time of a step goes (float32, equal heads):", "", table(["", *parts], where), ""),
            "Memory that a step takes beside weights and optimizer: "
            f"{OURS} {taken[OURS]:.0f} MiB, {DIFFUSERS} {taken[DIFFUSERS]:.0f} MiB.",
        ]
    )


def multiplies_bfloat16() -> bool:
    """Whether the processor does, as far as Linux says; others emulate it, fifty times as slowly."""
    facts = Path("/proc/cpuinfo")
    return facts.is_file() and any(flag in facts.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    fast = torch.cuda.is_available() or multiplies_bfloat16()
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"] if fast else ["float32"])
    parser.add_argument("--compile", action="store_true")


if __name__ == "__main__":
    command(__doc__, add_arguments, report)
