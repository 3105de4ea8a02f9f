"""Averages of any length, made after training from a checkpoint's averages and a run's snapshots."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_lit.average.power_function import check_std, profile_error, solve
from diffusion_lit.average.snapshot import Snapshot, snapshots_of
from diffusion_lit.terminal.progress import progress
from diffusion_lit.trust.plain import read_as

__all__ = ["LIMIT", "Kept", "asked_length", "kept_averages", "reconstruct"]

log = logging.getLogger(__name__)

LIMIT = 0.25
"""Of the error of a reconstructed profile, beyond which it is not what was asked for."""


@dataclass(frozen=True)
class Kept:
    """What a checkpoint says of one of its power-function averages."""

    std: float
    steps: list[int]
    """Those of its snapshots."""


def kept_averages(checkpoint: Mapping[str, Any], origin: str) -> dict[str, Kept]:
    """What a checkpoint, read from `origin`, says of its power-function averages, by their names."""
    return read_as(dict[str, Kept], checkpoint.get("power_averages", {}), f"{origin}: power_averages")


def asked_length(weights: str) -> float | None:
    """The length that `power_LENGTH` asks for, such as power_0.13; None where it asks for something else.

    Raises:
        ValueError: if it is not a length.
    """
    match = re.fullmatch(r"power_(\d*\.?\d+)", weights)
    return None if match is None else check_std(float(match[1]), f"the LENGTH of weights=power_LENGTH ({weights})")


def reconstruct(checkpoint: Mapping[str, Any], file: Path, std: float) -> dict[str, Tensor]:
    """The average of length `std` at a checkpoint's step, float32.

    Made of the averages in the checkpoint and of all earlier snapshots in its run's folder, so that its profile is as
    near as can be to the power function's (Karras et al. 2024, algorithm 3, arXiv:2312.02696).

    Args:
        checkpoint: the checkpoint.
        file: its file, in a run's folder.
        std: the length.

    Raises:
        ValueError: if the run kept no such averages, snapshots are missing or damaged, or there are too few for this
            length.
    """
    kept = kept_averages(checkpoint, str(file))
    if not kept or not all(isinstance(checkpoint.get(name), dict) and checkpoint[name] for name in kept):
        raise ValueError(
            f"{file} has no power-function averages, of which others could be made: train with "
            "callback=[default,power_ema]"
        )
    tracked = {average.std: checkpoint[name] for name, average in kept.items()}
    steps_taken = {read_as(int, checkpoint.get(f"{n}_num_updates"), f"{file}: {n}_num_updates") for n in kept}
    if len(steps_taken) > 1:
        raise ValueError(f"{file}: its averages are of different numbers of steps, {sorted(steps_taken)}")
    step = steps_taken.pop()
    if std in tracked:
        return dict(tracked[std])
    run = file.resolve().parents[1]
    found = [snapshot for snapshot in snapshots_of(run) if snapshot.step < step and snapshot.std in tracked]
    expected = {Snapshot(run, average.std, n) for average in kept.values() for n in average.steps if n < step}
    if missing := sorted(snapshot.path for snapshot in expected - {*found}):
        raise ValueError(
            f"{len(missing)} of {len(expected)} snapshots of the averages are missing, such as {missing[0]}: put them "
            "back there"
        )
    stds = [*(snapshot.std for snapshot in found), *tracked]
    steps = [*(snapshot.step for snapshot in found), *[step] * len(tracked)]
    coefficients = solve(steps, stds, step, std)
    error = profile_error(coefficients, steps, stds, step, std)
    if error > LIMIT:
        raise ValueError(
            f"an average of length {std} cannot be made of {len(found)} snapshots: its profile would be off by "
            f"{error:.0%}. Lengths near {', '.join(f'{own:g}' for own in sorted(tracked))} can; others need more "
            "snapshots, which every_n_steps of the averages says"
        )
    names = next(iter(tracked.values())).keys()
    parts = [*(snapshot.path.name for snapshot in found), *tracked]
    total: dict[str, Tensor] = {}
    with progress("averaging", len(parts), "snapshots", delay=2.0) as work:
        for part, coefficient in zip([*found, *tracked.values()], coefficients, strict=True):
            for name, w in (part.read(names) if isinstance(part, Snapshot) else part).items():
                scaled = w.float() * float(coefficient)
                total[name] = total[name].add_(scaled) if name in total else scaled
            work.advance(1)
    log.info("average of length %g: of %d snapshots, its profile is off by %.2g%%", std, len(found), 100 * error)
    return total
