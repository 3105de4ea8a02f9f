"""The raw weights' validation loss: whose weights a batch meets. `tests/logger/test_dashboards.py` has the figure."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from diffusion_lit.callback import EMA, RawLoss
from diffusion_lit.module import DiffusionModule


class Module(DiffusionModule):
    """One weight, noted where a loss is asked for, which the last batch does not have."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.layer.weight)
        self.seen: list[float] = []

    def held_out_losses(self, batch: Any) -> Any:
        self.seen.append(float(self.layer.weight.detach()))
        if batch == "bad":
            raise RuntimeError("no loss")
        return SimpleNamespace(loss=batch, t=None)


def test_the_average_is_back_after_each_batch() -> None:
    module, ema, losses, callback = Module(), EMA(0.5), [], RawLoss()
    trainer: Any = SimpleNamespace(callbacks=[ema], sanity_checking=False)
    ema.average = {"layer.weight": torch.full((1, 1), 3.0)}
    ema.swap_in(module)
    callback.losses = SimpleNamespace(update=lambda loss, t: losses.append(loss))  # type: ignore[assignment]
    for batch in ("first", "second"):
        callback.on_validation_batch_end(trainer, module, None, batch)
        assert float(module.layer.weight.detach()) == 3
    with pytest.raises(RuntimeError, match="no loss"):
        callback.on_validation_batch_end(trainer, module, None, "bad")
    assert float(module.layer.weight.detach()) == 3
    assert (module.seen, losses) == ([0, 0, 0], ["first", "second"])
