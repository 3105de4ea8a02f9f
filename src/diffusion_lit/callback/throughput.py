"""How fast a run is, what it waits for, and how much memory it takes."""

import sys
import warnings

import torch
from lightning.fabric.utilities.throughput import _plugin_to_compute_dtype, get_available_flops, measure_flops
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.func import functional_call

from diffusion_lit.condition import Condition
from diffusion_lit.distributed.collective import gathered
from diffusion_lit.model.base import Network
from diffusion_lit.module import DiffusionModule
from diffusion_lit.step_timer import StepTimer

__all__ = ["Throughput", "flops_of"]

GIB = 2**30


class Throughput(Callback):
    """Logs, with each point of the training curves, what the steps since the last one took, over all ranks.

    `throughput/images_per_s`, `throughput/step_seconds` and `throughput/data_wait`, the share of waiting for images,
    are of training steps alone: validation, pictures and checkpoints count for nothing, nor does a process's first
    step, which compiles. `memory/peak_gib` is the most that any rank has taken so far, of its GPU or else of the
    machine. `throughput/mfu` is the share of the device's peak, as Lightning has it, that the network's multiplications
    use; it is left out where that is not known. These figures are the machine's: a resumed run has others.
    """

    def __init__(self) -> None:
        self.flops = 0
        """Of a network's training on one image; 0 where the device's peak is not known."""
        self.peak = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DiffusionModule)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a device that Lightning does not know
            dtype = _plugin_to_compute_dtype(trainer.precision_plugin)
            self.peak = float(get_available_flops(trainer.strategy.root_device, dtype) or 0)
        if self.peak and stage == "fit":
            self.flops = flops_of(pl_module.denoiser.network)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.images, self.steps, self.warm = 0, 0, False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        timer = timer_of(trainer)
        if not self.warm and timer is not None:
            if pl_module.accumulation.ends_step:
                timer.reset()
                self.warm = True
            return
        self.images += len(batch)  # type: ignore[arg-type]
        self.steps += pl_module.accumulation.ends_step

    def training_figures(self, trainer: Trainer, module: DiffusionModule) -> dict[str, float]:
        """Called by the module with each point of its curves, on all ranks."""
        timer = timer_of(trainer)
        own = [peak_memory(module.device), 0.0, 0.0]
        if timer is not None and self.steps:
            own[1:] = [timer.seconds, timer.waited]
        memory, seconds, waited = gathered(torch.tensor([own], device=module.device)).cpu().double().unbind(1)
        figures = {"memory/peak_gib": float(memory.max())} if memory.max() > 0 else {}
        if timer is not None and seconds.min() > 0:
            rate = self.images * len(seconds) / float(seconds.max())
            figures |= {
                "throughput/images_per_s": rate,
                "throughput/step_seconds": float(seconds.max()) / self.steps,
                "throughput/data_wait": float((waited / seconds).mean()),
            }
            if self.flops:
                figures["throughput/mfu"] = self.flops * rate / (self.peak * len(seconds))
            timer.reset()
            self.images = self.steps = 0
        return figures


def timer_of(trainer: Trainer) -> StepTimer | None:
    """The timer of a trainer of ours."""
    return getattr(trainer.fit_loop.epoch_loop, "timer", None)


def peak_memory(device: torch.device) -> float:
    """GiB that this process has taken of a GPU at most; elsewhere, of the machine's memory; 0 where nobody says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def flops_of(network: Network) -> int:
    """Multiplications and additions of a training step on one image; counted without a number being computed."""
    weights = {name: meta(w) for name, w in [*network.named_parameters(), *network.named_buffers()]}
    label = None if network.num_classes is None else torch.zeros(1, dtype=torch.long, device="meta")
    augment = torch.zeros(1, network.augmentation_dim, device="meta") if network.augmentation_dim else None
    x, c_noise = torch.zeros(1, *network.image_shape, device="meta"), torch.zeros(1, device="meta")

    def forward() -> Tensor:
        output: Tensor = functional_call(network, weights, (x, c_noise, Condition(label, augment)))
        return output

    return measure_flops(network, forward, Tensor.sum)


def meta(w: Tensor) -> Tensor:
    return torch.empty_like(w, device="meta", requires_grad=w.requires_grad)
