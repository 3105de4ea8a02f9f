"""The number that ranks tell each other: the largest, a call late unless it is waited for."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion_lit.callback.shared_number import SharedNumber


@dataclass
class Reduction:
    """One that has its answer, with another rank's number, only when it is waited for."""

    largest: Tensor
    other: int

    def wait(self) -> None:
        self.largest.fill_(max(int(self.largest), self.other))


def test_the_largest_number_of_a_call_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    others = iter([0, 5, 0, 3, 0, 9, 0])

    def all_reduce(largest: Tensor, op: object, group: object, async_op: bool) -> Reduction:
        assert (op, group, async_op) == (torch.distributed.ReduceOp.MAX, "gloo", True)
        return Reduction(largest, next(others))

    monkeypatch.setattr(torch.distributed, "new_group", lambda backend: backend)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    number = SharedNumber(world_size=2)
    assert [number.exchange(own) for own in (1, 2, 0)] == [0, 1, 5]
    assert number.exchange(2, now=True) == 3, "this call's, and what was sent before"
    assert number.exchange(0) == 0, "nothing is left of before"
    assert [number.exchange(0), number.exchange(0, now=True)] == [0, 9]


def test_a_single_process_hears_itself_at_once() -> None:
    number = SharedNumber(world_size=1)
    assert [number.exchange(own) for own in (0, 15, 0)] == [0, 15, 0]
    assert number.exchange(2, now=True) == 2
