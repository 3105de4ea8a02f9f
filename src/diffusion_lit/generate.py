"""Images from a trained model, each a function of the seed and its own index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.guidance import guided
from diffusion_lit.random import ImageNoise, interpolated_noise
from diffusion_lit.sampler import Noise, Sampler

__all__ = ["Setup", "condition_of", "default_labels", "generate", "set_up"]


@dataclass(frozen=True)
class Setup:
    """What a command draws images with."""

    denoiser: BaseDenoiser
    sampler: Sampler
    classes: list[int] | None
    """The classes to take in turn; None where the model has none."""
    class_names: list[str] | None
    """The names of all classes of the model, where they are known."""
    device: str

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        """The class of each image, by its index."""
        return None if self.classes is None else [self.classes[i % len(self.classes)] for i in indices]


def set_up(cfg: DictConfig) -> Setup:
    """The model of `cfg.ckpt` with its guidance and sampler, checked, as `sample` and `plot` are configured.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if a setting does not fit the model, or this machine.
    """
    device = choose_device(cfg.device)
    model, checkpoint = load_denoiser(cfg.ckpt, cfg.weights, device, cfg.autoencoder, cfg.allow)
    model.space.check()
    guide = cfg.get("guide")
    worse = None if guide is None else load_denoiser(guide, cfg.weights, device, allow=cfg.allow)[0]
    denoiser = guided(model, cfg.guidance, worse, cfg.get("guidance_interval"))
    sampler: Sampler = instantiate(cfg.sampler)
    sampler.check(denoiser)
    class_names = checkpoint.get("class_names")
    return Setup(denoiser, sampler, choose_classes(cfg.labels, model.num_classes, class_names), class_names, device)


def choose_device(name: str) -> str:
    """The device that `name` means on this machine. Raises a ValueError if it has no such device."""
    available = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    if name == "auto":  # of several processes on a machine, each takes a device of its own
        several = available[0] == "cuda" and dist.is_initialized()
        return f"cuda:{dist.get_rank() % torch.cuda.device_count()}" if several else available[0]
    if name.split(":")[0] not in available:
        raise ValueError(f"device={name} is not available here; choose auto or one of: {', '.join(available)}")
    return name


def choose_classes(labels: object, num_classes: int | None, names: Sequence[str] | None) -> list[int] | None:
    """The classes that `labels` asks for, by name or number; None means all. A ValueError if the model lacks them."""
    if labels is None:
        return None if num_classes is None else list(range(num_classes))
    if num_classes is None:
        raise ValueError(f"labels={labels}, but this model was trained without classes; leave labels out")
    asked = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
    numbers = {str(i): i for i in range(num_classes)} | {name: i for i, name in enumerate(names or [])}
    if not asked or any(str(label) not in numbers for label in asked):
        listed = "" if names is None else f" or their names ({', '.join(names[:20])}{', ...' if names[20:] else ''})"
        raise ValueError(f"labels must be classes from 0 to {num_classes - 1}{listed}, got {labels}")
    return [numbers[str(label)] for label in asked]


def default_labels(denoiser: BaseDenoiser, indices: Sequence[int]) -> list[int] | None:
    """All classes in turn, by image index; None where the model has none."""
    return None if denoiser.num_classes is None else [i % denoiser.num_classes for i in indices]


def condition_of(labels: Sequence[int] | None, device: torch.device | str) -> Condition:
    """The condition of images of these classes."""
    return Condition(None if labels is None else torch.tensor(labels, device=device))


def generate(
    denoiser: BaseDenoiser,
    sampler: Sampler,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    seed: int,
    device: torch.device | str = "cpu",
    interpolate: int | None = None,
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """One batch of images, uint8 [B, C, H, W].

    Args:
        denoiser, sampler: the model, guided or not, in evaluation mode, on `device`, and how to sample.
        indices: which images: number i is the same in any batch.
        labels: the classes of images 0, 1, 2, ..., or None.
        seed, device: seed of all the noise, and where to compute.
        interpolate: how many images lead from one noise to the next (see `interpolated_noise`); None draws each
            image from its own.
        on_step: called after each sampling step, as `Sampler` says.
    """
    shape = denoiser.image_shape
    noise: Noise = ImageNoise(seed, indices, shape, device)
    if interpolate is not None:
        noise = interpolated_noise(seed, indices, interpolate, shape, device)
    condition = condition_of(None if labels is None else [labels[i] for i in indices], device)
    return denoiser.space.decode(sampler(denoiser, noise, condition, on_step))
