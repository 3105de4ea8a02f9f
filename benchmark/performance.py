"""Everything about speed in one command: step, sampling, run, start-up, memory, growth; ours and diffusers' in turn.

    python benchmark/performance.py docs/performance.md [--device cpu] [--parts step sampling run growth] [--quick]

Each part is a script of its own beside this one, whose head says what is measured and how; `--quick` takes few steps
of small networks. What stands below the page's marker is kept.
"""

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import growth
import run_loop
import sampling
import step_time
import torch

from diffusion_lit.environment import machine, versions

MARKER = "<!-- what follows is written by hand -->"
PARTS: dict[str, tuple[str, ModuleType, list[str]]] = {
    "step": ("A training step", step_time, ["--channels", "32", "--batch-size", "4", "--repeats", "3"]),
    "sampling": (
        "Sampling",
        sampling,
        ["--num-samples", "8", "--num-steps", "3", "--channels", "32", "--ways", "plain"],
    ),
    "run": ("A whole run, and its start", run_loop, ["--steps", "15", "--repeats", "1"]),
    "growth": ("Growth", growth, ["--resolutions", "16", "32", "--widths", "32", "64", "--repeats", "1"]),
}
"""By name: heading, script, and its options where few steps do."""


def section(name: str, device: str, quick: bool, page: Path) -> str:
    heading, script, options = PARTS[name]
    parser = argparse.ArgumentParser()
    script.add_arguments(parser)
    args = parser.parse_args(["--device", device, *(options if quick else [])])
    picture = ""
    if script is growth:
        args.picture = page.with_name("growth.svg")
        picture = f"\n![A step's time and memory by pixels and by parameters]({args.picture.name})\n"
    summary = (script.__doc__ or "").strip().splitlines()[0]
    return f"## {heading}\n\n`benchmark/{script.__name__}.py`: {summary}\n\n{script.report(args)}\n{picture}"


def header(device: str, quick: bool) -> str:
    facts, torch_version = machine(), versions()["torch"]
    on = facts["gpus"][0] if device == "cuda" else f"{facts['cpu']}, {torch.get_num_threads()} threads"
    day = datetime.now(UTC).date()
    small = " Few steps of small networks: a trial of the command, and no measurement." if quick else ""
    return (
        f"# Performance\n\nWritten by `python benchmark/performance.py docs/performance.md` on {day}: {on}, torch "
        f"{torch_version}.{small} Ratios are medians over rounds in which both sides take turns; the middle half of "
        "the rounds stands in brackets.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    sections = [header(args.device, args.quick)]
    kept = re.split(MARKER, args.out.read_text())[-1] if args.out.is_file() else "\n"
    for name in args.parts:
        print(f"{datetime.now():%H:%M:%S} measuring: {name}", flush=True)
        sections.append(section(name, args.device, args.quick, args.out))
        args.out.write_text("\n".join([*sections, MARKER]) + kept)  # what is known so far outlives an interruption
    print(f"{datetime.now():%H:%M:%S} done: {args.out}", flush=True)


if __name__ == "__main__":
    main()
