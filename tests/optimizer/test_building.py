"""A resumed optimizer: the settings asked for now, and moments that lie as the weights do."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from diffusion_lit.optimizer import Muon, refresh


def make(kernel: nn.Parameter, kind: str, lr: float = 0.1) -> Optimizer:
    """With a kernel whose moments are Adam's; Muon steps another matrix beside it."""
    if kind == "adamw":
        return AdamW([kernel], lr, fused=True)
    return Muon([kernel], [nn.Parameter(torch.zeros(2, 2))], adam_lr=lr)


def trained(optimizer: Optimizer, kernel: nn.Parameter, first: int, last: int) -> None:
    for number in range(first, last):
        gradient = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(number))
        kernel.grad = torch.empty_like(kernel).copy_(gradient)  # which lies as autograd leaves it
        optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layouts", [("contiguous_format", "channels_last"), ("channels_last", "contiguous_format")])
def test_moments_come_to_lie_as_their_weights_do(kind: str, layouts: tuple[str, str]) -> None:
    before, now = (getattr(torch, name) for name in layouts)
    start = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    whole, part = nn.Parameter(start.clone()), nn.Parameter(start.clone(memory_format=before))
    trained(make(whole, kind), whole, 0, 4)
    first = make(part, kind)
    trained(first, part, 0, 2)
    rest = nn.Parameter(part.detach().clone(memory_format=now))
    resumed = make(rest, kind)
    asked = [{name: value for name, value in group.items() if name != "params"} for group in resumed.param_groups]
    resumed.load_state_dict(first.state_dict())
    refresh(resumed, asked)
    trained(resumed, rest, 2, 4)
    torch.testing.assert_close(rest, whole)


def test_settings_are_those_asked_for_now_but_the_rate() -> None:
    """Which each step sets."""
    kernel = nn.Parameter(torch.zeros(2, 2))
    optimizer = AdamW([kernel], 0.1, weight_decay=0.5)
    refresh(optimizer, [{"lr": 0.3, "weight_decay": 0.2, "betas": [0.8, 0.9]}])
    [group] = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.1, 0.2, [0.8, 0.9])
