"""Several processes of a command that shares its work out, on one machine."""

import logging

import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy

from diffusion_lit.distributed.ranks import launched_by

__all__ = ["start_processes"]


def start_processes(devices: int, on_gpus: bool) -> None:
    """Start the further processes of this command, as Lightning does in training, and connect all.

    Those that a launcher has started are connected already.

    Args:
        devices: how many processes.
        on_gpus: whether each is to have a GPU.

    Raises:
        ValueError: if a launcher has started another number of processes.
        MisconfigurationException: Lightning's, if there are not so many GPUs.
    """
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise ValueError(f"devices is how many processes share the images, at least 1; got {devices}")
    if (launcher := launched_by()) is not None:
        if devices not in (1, started := dist.get_world_size()):
            raise ValueError(f"{launcher} has started {started} processes, and devices={devices}: leave devices out")
        return
    if devices == 1:
        return
    for package in ("fabric", "pytorch"):  # whichever was imported last logs for both
        logging.getLogger(f"lightning.{package}.utilities.rank_zero").setLevel(logging.WARNING)
    strategy = DDPStrategy(process_group_backend="cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    accelerator, environment = "cuda" if on_gpus else "cpu", LightningEnvironment()  # and no scheduler's
    Fabric(accelerator=accelerator, devices=devices, strategy=strategy, plugins=[environment]).launch()
