"""No step of training makes the host wait for the device: neither network, loss, optimizer, callbacks nor the loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lit import bound
from diffusion_lit.data import Batch
from diffusion_lit.trainer import EpochLoop
from tests.host_reads import HostReadError, SimulatedDevice
from tests.launch import train_in
from tests.repeats import slow_but
from tests.test_whole_way import NETWORKS, options


class Watch:
    """Runs whose steps may not wait, but for the first, and those after which something is logged or validated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.steps = SimulatedDevice(), 0
        for name in ("advance", "on_advance_end"):
            monkeypatch.setattr(EpochLoop, name, self.watched(getattr(EpochLoop, name)))
        before, after, to = EpochLoop._on_before_fetch, EpochLoop._on_after_fetch, Batch.to

        def on_before_fetch(loop: EpochLoop) -> None:  # the loader is the host's
            self.device.watching = False
            before(loop)

        def on_after_fetch(loop: EpochLoop) -> None:
            after(loop)
            self.device.watching = self.watches(loop.trainer, loop.trainer.global_step + 1)

        def upload(batch: Batch, device: torch.device) -> Batch:
            return to(batch, device).apply(self.put)

        monkeypatch.setattr(EpochLoop, "_on_before_fetch", on_before_fetch)
        monkeypatch.setattr(EpochLoop, "_on_after_fetch", on_after_fetch)
        monkeypatch.setattr(Batch, "to", upload)

    def put(self, tensor: Tensor) -> Tensor:
        self.device.put([tensor])
        return tensor

    def watches(self, trainer: Trainer, step: int) -> bool:
        """Whether `step` may not wait: the first makes the optimizer's state, and the others log or validate."""
        due = (trainer.log_every_n_steps, trainer.val_check_interval, trainer.max_steps)
        return step > 1 and all(step % int(every) for every in due)

    def watched(self, function: Callable[[EpochLoop, Any], None]) -> Callable[[EpochLoop, Any], None]:
        def run(loop: EpochLoop, data_fetcher: Any) -> None:
            begins = function.__name__ == "advance"
            module = loop.trainer.lightning_module
            self.device.put([*module.parameters(), *module.buffers()])
            self.device.watching = self.watches(loop.trainer, loop.trainer.global_step + begins)
            self.steps += begins and self.device.watching
            with self.device.entered():
                function(loop, data_fetcher)

        return run


STEPS = (
    *("trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.log_every_n_steps=3"),
    "callback.progress.plain_seconds=0",  # which says how far it is after each step
)
RUNS = {
    **{name: options(name) for name in NETWORKS},
    "averages": (*options("edm2"), "loss=uncertainty", "callback=[default,power_ema]", "augmentation=none"),
    "bound": (*options("unet"), "loss=vlb", "loss.variance=small", "schedule=cosine", "augmentation=flip"),
    "importance": (
        *(*options("unet"), "density=importance", "density.num_bins=5", "density.history_size=2"),
        *("augmentation=edm", "trainer.accumulate_grad_batches=2"),
    ),
}
CHEAP = ("averages",)


@pytest.mark.parametrize("name", slow_but(CHEAP, RUNS))
def test_no_step_makes_the_host_wait(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    monkeypatch.setattr(bound, "to_decode", lambda last: torch.arange(len(last)))  # as on a GPU
    train_in(tmp_path, *STEPS, tiny=RUNS[name])
    assert watch.steps >= 3


class Reader(Callback):
    """Reads a number of the device's at each step."""

    def __init__(self, read: str) -> None:
        self.read = read

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        READS[self.read](outputs["loss"].detach().repeat(2))


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda loss: loss[0].item(),
    "float": lambda loss: float(loss.sum()),
    "if": lambda loss: bool(loss[0] > 0),
    "tolist": lambda loss: loss.tolist(),
    "cpu": lambda loss: loss.cpu(),
    "equal": lambda loss: torch.equal(loss, loss + 1),
    "nonzero": lambda loss: loss.nonzero(),
    "mask": lambda loss: loss[loss > 0],
    "masked write": lambda loss: loss.index_put_((loss > 0,), loss[:1]),
    "upload": lambda loss: torch.tensor([1.0], device=loss.device),
}


@pytest.mark.parametrize("read", READS)
def test_what_waits_is_found(read: str) -> None:
    device = SimulatedDevice()
    loss = torch.ones(2)
    device.put([loss])
    with device.entered():
        step = torch.tensor(3.0)  # the host's
        assert READS[read] and int(step + 1) == 4 and step.tolist() == 3
        with pytest.raises(HostReadError):
            READS[read](loss * 2)
        device.watching = False
        READS[read](loss * 2)


def test_a_read_in_training_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Watch(monkeypatch)
    reader = "+callback.reader={_target_: tests.test_host_reads.Reader, read: item}"
    with pytest.raises(HostReadError, match="_local_scalar_dense"):
        train_in(tmp_path, *STEPS, reader, tiny=RUNS["unet"])
