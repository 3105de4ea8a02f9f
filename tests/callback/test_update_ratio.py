"""How far a step moves the weights, against the definition."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from diffusion_lit.callback.update_ratio import UpdateRatio


def stepped(callback: UpdateRatio, module: nn.Module, step: int, every: int) -> dict[str, float]:
    """What is logged at a point after optimizer step `step`, counted from 1, which adds 0.3 to each weight."""
    trainer, given, optimizer = SimpleNamespace(global_step=step - 1, log_every_n_steps=every), module, None
    callback.on_before_optimizer_step(trainer, given, optimizer)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3
    return callback.training_figures(trainer, given)  # type: ignore[arg-type]


def test_it_is_the_norm_of_the_change_over_that_of_the_weights_before() -> None:
    """At points of the curves alone; 9 weights of 2 change by 0.3 each."""
    module, callback = nn.Linear(8, 1), UpdateRatio()
    for p in module.parameters():
        nn.init.constant_(p, 2.0)
    logged: list[Any] = [stepped(callback, module, step, every=3) for step in range(1, 7)]
    assert logged[:2] == [{}, {}] and logged[3:5] == [{}, {}]
    assert logged[2]["train/update_ratio"] == pytest.approx(0.3 / 2.6)
    assert logged[5]["train/update_ratio"] == pytest.approx(0.3 / 3.5)


def test_it_can_be_turned_off() -> None:
    module = nn.Linear(8, 1)
    assert stepped(UpdateRatio(enabled=False), module, 1, every=1) == {}
    assert stepped(UpdateRatio(), module, 1, every=0) == {}
    assert list(stepped(UpdateRatio(), module, 1, every=1)) == ["train/update_ratio"]
