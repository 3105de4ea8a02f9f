"""How long training steps take, and how much of that is waiting for images."""

import time

__all__ = ["StepTimer"]


class StepTimer:
    """Counts the time inside of steps; validation, pictures and checkpoints are between them."""

    def __init__(self) -> None:
        self.done = self.waited = self.fetch_began = 0.0
        self.step_began: float | None = None

    def reset(self) -> None:
        """Count anew from here, in the middle of a step."""
        self.done = self.waited = 0.0
        self.step_began = time.perf_counter()

    def begin_step(self) -> None:
        self.step_began = time.perf_counter()

    def end_step(self) -> None:
        self.done, self.step_began = self.seconds, None

    def begin_fetch(self) -> None:
        self.fetch_began = time.perf_counter()

    def end_fetch(self) -> None:
        self.waited += time.perf_counter() - self.fetch_began

    @property
    def seconds(self) -> float:
        """Spent in steps, waiting included."""
        return self.done + (0.0 if self.step_began is None else time.perf_counter() - self.step_began)
