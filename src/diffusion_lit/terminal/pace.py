"""How long the rest of a run takes."""

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from diffusion_lit.terminal.status_line import clock_time

__all__ = ["Pace", "remedy", "too_long"]

WARM_UP = 1  # steps whose time is left out: the first starts loading processes, chooses kernels, compiles
NEWEST = 100  # steps whose time counts
PATIENCE = {"cpu": 6 * 3600.0, "gpu": 30 * 86400.0}
"""Seconds of training that somebody may mean."""


@dataclass
class Pace:
    """The durations of a run's steps, and of what comes between them: validation, pictures, figures.

    A step counts by the median of the newest ones. What comes between them counts by its newest duration, as often as
    the steps between its last two times say; by its first time, as if it had come at that step since step 0.
    """

    steps: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    num_steps: int = 0
    between: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    """By name: seconds, the step that it came after, and how many steps after the time before."""

    def add_step(self, seconds: float) -> None:
        """Take a step's time, waiting for its images included, into account."""
        self.num_steps += 1
        if self.num_steps > WARM_UP:
            self.steps.append(seconds)

    def add_between(self, name: str, seconds: float, step: int) -> None:
        """Take something that came after a step into account."""
        _, last, spacing = self.between.get(name, (0.0, 0, 0))
        self.between[name] = (seconds, step, step - last or spacing)

    @property
    def seconds_a_step(self) -> float | None:
        """None before there are steps that count."""
        return median(self.steps) if self.steps else None

    def left(self, step: int, last_step: float) -> float | None:
        """Seconds from `step` to `last_step`, both optimizer steps; None where it cannot be said."""
        if self.seconds_a_step is None or math.isinf(last_step):
            return None
        between = sum(
            seconds * (max(0.0, last_step - last) // spacing)
            for seconds, last, spacing in self.between.values()
            if spacing > 0
        )
        return (last_step - step) * self.seconds_a_step + between


def too_long(seconds: float, on_gpu: bool) -> bool:
    """Whether a run takes longer than anybody is likely to have meant."""
    return seconds > PATIENCE["gpu" if on_gpu else "cpu"]


def remedy(seconds: float, seconds_a_step: float, parameters: int, sides: tuple[int, int], on_gpu: bool) -> str:
    """What a run costs that takes too long, and what to lower.

    Args:
        seconds, seconds_a_step: of all that is left of the run, and of a step.
        parameters: of the network.
        sides: height and width of the images.
        on_gpu: whether it runs on a GPU.
    """
    an_hour = max(1, int(3600 / seconds_a_step))
    where = "this GPU" if on_gpu else "the CPU"
    return (
        f"at {seconds_a_step:.2g} s a step this run takes about {clock_time(seconds)} more on {where}. If that is not "
        f"meant, stop it with Control-C, and lower what it costs: trainer.max_steps ({an_hour} more take an hour), the "
        f"model (of {parameters:,} parameters; model=tiny has 1.1 million), or the images' resolution "
        f"({sides[0]} x {sides[1]}){'' if on_gpu else '; or use a GPU'}"
    )
