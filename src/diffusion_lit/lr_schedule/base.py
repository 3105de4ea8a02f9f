"""The learning rate as a function of the step."""

from abc import ABC, abstractmethod

__all__ = ["LRSchedule"]


class LRSchedule(ABC):
    """By what the learning rate is multiplied.

    A function, without a state of its own: a resumed run has the rate of its step, and a run that is trained for longer
    than planned the rate of its step in the longer plan. It is defined for every step and share.
    """

    @abstractmethod
    def factor(self, step: int, share: float) -> float:
        """The factor of optimizer step `step` (the first is 0), when `share` of the budget is used; at least 0."""
