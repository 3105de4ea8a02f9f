"""How long is a training step, where does its time go, and how much memory does it take, against diffusers?

    python benchmark/step_time.py [--channels 64] [--batch-size 32] [--repeats 10] [--ways plain compiled]

The same network on both sides (see `sides`), 32 x 32 colour images, torch's AdamW: ours with `MSELoss`, theirs as in
diffusers' training example. Both are run as they come (`plain`), with channels last in memory (`channels_last`), and
compiled so (`compiled`: ours by `execution`, block by block, theirs by `torch.compile`, whole). Steps take turns; what
counts is the ratio of a round's two steps, as its median and the middle half of the rounds. The peak is that of the
network's own 3 x 3 convolutions, forward, timed alone; the share of it is MFU, 1 where a step were nothing but these
convolutions at their best.
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
from sides import (
    DIFFUSERS,
    GPU,
    OURS,
    Step,
    alternate,
    command,
    multiplies_bfloat16,
    our_network,
    our_side,
    ratio,
    table,
    their_side,
)
from torch.autograd import DeviceType
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
WAYS = ("plain", "channels_last", "compiled")


def images(args: argparse.Namespace) -> torch.Tensor:
    return torch.rand(args.batch_size, 3, 32, 32, device=args.device) * 2 - 1


def make(
    side: str, args: argparse.Namespace, precision: str = "float32", heads: str = "equal", way: str = "plain"
) -> Step:
    torch.manual_seed(0)
    module, loss = our_side(args.channels) if side == OURS else their_side(args.channels, heads=heads)
    step = Step(module, loss, images(args), precision)
    last, compiled = way in ("channels_last", "compiled"), way == "compiled"
    if side == OURS:
        execution = Execution(compile=compiled, channels_last=last)
        execution.apply(module.network, torch.device(args.device))  # type: ignore[union-attr,arg-type]
        return step
    if last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        module.compile()
    return step


def peak_flops(args: argparse.Namespace, precision: str) -> float:
    """Floating-point operations a second of the level at half the resolution, where most of a step's are."""
    dtype, width = torch.float32 if precision == "float32" else torch.bfloat16, 2 * args.channels
    x = torch.randn(args.batch_size, width, 16, 16, device=args.device, dtype=dtype)
    weight = torch.randn(width, width, 3, 3, device=args.device, dtype=dtype)
    if x.is_cuda:
        x, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (x, weight))
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
        if event.device_type != DeviceType.CPU:
            continue  # a kernel, whose time its operation has too
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


def rows_of(precision: str, peak: float, args: argparse.Namespace) -> list[list[str]]:
    """A line for each way to run each side; `peak` is what the convolutions alone reach."""
    sides = {f"{side}, {way}": make(side, args, precision, way=way) for way in args.ways for side in (OURS, DIFFUSERS)}
    sides[f"{DIFFUSERS}, plain, its own heads"] = make(DIFFUSERS, args, precision, heads="default")
    times = alternate(sides, args.repeats, warm_up=3)
    flops = flops_of(our_network(args.channels)) * args.batch_size
    rows = []
    for name, spent in times.items():
        seconds = median(spent)
        against = [times[f"{DIFFUSERS}, {way}"] for way in args.ways]
        faster = ["" if peer is spent else ratio(peer, spent) for peer in against]
        memory = [f"{step_memory(sides[name]):.0f}"] if args.device == "cuda" else []
        rows.append([precision, name, f"{1000 * seconds:.1f}", f"{flops / seconds / peak:.2f}", *faster, *memory])
    return rows


def where(args: argparse.Namespace) -> str:
    """Where the time of a step goes, in the last of the precisions."""
    precision = args.precisions[-1]
    parts = {name: shares(make(name, args, precision)) for name in (OURS, DIFFUSERS)}
    kinds = sorted({*parts[OURS], *parts[DIFFUSERS]}, key=lambda kind: -parts[OURS].get(kind, 0))
    lines = [[kind, *(f"{100 * parts[name].get(kind, 0):.0f} %" for name in parts)] for kind in kinds]
    return f"Where the time of a step goes ({precision}, plain):\n\n{table(['', *parts], lines)}"


def report(args: argparse.Namespace) -> str:
    head = ["precision", "what", "ms", "MFU", *(f"times as fast as {DIFFUSERS}, {way}" for way in args.ways)]
    on_gpu = args.device == "cuda"
    peaks = {precision: peak_flops(args, precision) for precision in args.precisions}
    rows = [row for precision, peak in peaks.items() for row in rows_of(precision, peak, args)]
    size = sum(p.numel() for p in our_network(args.channels).parameters()) / 1e6
    lines = [
        f"{size:.1f} M parameters, {args.batch_size} images a step.",
        *("", table([*head, *(["MiB"] if on_gpu else [])], rows), ""),
        "The convolutions alone reach, in GFLOP/s: "
        + ", ".join(f"{precision} {peak / 1e9:,.0f}" for precision, peak in peaks.items())
        + ".",
        *("", where(args)),
    ]
    if on_gpu:
        lines += ["", "MiB: what a step takes beside weights and optimizer."]
    else:
        taken = {name: memory_of(name, args) for name in (OURS, DIFFUSERS)}
        lines += ["", "Memory that a step takes beside weights and optimizer (float32, plain): "]
        lines[-1] += ", ".join(f"{name} {mib:.0f} MiB" for name, mib in taken.items()) + "."
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32 if GPU else 16)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda" if GPU else "cpu")
    precisions = ["float32", "bfloat16"] if multiplies_bfloat16() else ["float32"]
    parser.add_argument("--precisions", nargs="+", default=precisions)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plain"])


if __name__ == "__main__":
    command(__doc__, add_arguments, report)
