"""Images from a trained model, each a function of the seed and its own index."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import BaseDenoiser, Denoiser
from diffusion_lit.guidance import guided
from diffusion_lit.labels import Labels, choose_labels
from diffusion_lit.loading import loaded
from diffusion_lit.precision import check_precision, compile_networks, run_network_in
from diffusion_lit.random import ImageNoise, interpolated_noise
from diffusion_lit.sampler import Noise, Sampler

__all__ = [
    *("Models", "Setup", "arrange", "condition_of", "default_labels", "generate", "load_models", "sampled", "set_up"),
    "walk_size",
]

CPU_BATCH = 16  # more are no faster, and another number is rounded otherwise


@dataclass(frozen=True)
class Models:
    """What images are drawn with, however they are: a model, and the worse one that guides it."""

    denoiser: Denoiser
    guide: Denoiser | None
    checkpoint: dict[str, Any]
    """The model's."""
    device: str
    precision: str
    """What the networks run in."""
    contents: tuple[str, str | None]
    """The SHA-256 of the checkpoints that were loaded, which a run may have replaced since."""


@dataclass(frozen=True)
class Setup:
    """What a command draws images with."""

    denoiser: BaseDenoiser
    sampler: Sampler
    by_index: Labels | None
    """The class of each image; None where the model has none."""
    class_names: list[str] | None
    """The names of all classes of the model, where they are known."""
    device: str
    step: int
    """How many optimizer steps the model was trained for."""
    precision: str
    """What the network runs in."""

    @property
    def num_steps(self) -> int:
        """How many steps the sampler takes."""
        return len(self.sampler.times(self.denoiser.schedule)) - 1

    def labels(self, indices: Iterable[int]) -> list[int] | None:
        """The class of each image, by its index."""
        return None if self.by_index is None else [self.by_index[i] for i in indices]


def load_models(cfg: DictConfig) -> Models:
    """The model of `cfg.ckpt`, and that of `cfg.guide`.

    Raises:
        FileNotFoundError: if a checkpoint does not exist.
        ValueError: if a setting does not fit the model, or this machine.
    """
    device, asked = choose_device(cfg.device), cfg.get("precision", "32-true")
    precision = None if asked is None else check_precision(asked)
    guide = cfg.get("guide")
    model, checkpoint, content = loaded(cfg.ckpt, cfg.weights, device, cfg.autoencoder, cfg.allow)
    model.space.check()
    worse, _, other = (None,) * 3 if guide is None else loaded(guide, cfg.weights, device, None, cfg.allow)
    precision = precision or check_precision(checkpoint["config"].get("trainer", {}).get("precision", "32-true"))
    for part in (model, worse):
        if part is not None:
            run_network_in(part, precision)
    return Models(model, worse, checkpoint, device, precision, (content, other))


def set_up(cfg: DictConfig, models: Models | None = None) -> Setup:
    """A model with its guidance and sampler, checked, as `sample`, `plot` and `evaluate` are configured.

    Args:
        cfg: the settings.
        models: what `load_models` gives, where several setups share it; None loads it.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if a setting does not fit the model, or this machine.
    """
    models, sampler = models or load_models(cfg), instantiate(cfg.sampler)
    setup = arrange(models, sampler, cfg.labels, cfg.guidance, cfg.get("guidance_interval"), cfg.seed)
    if cfg.get("compile"):
        networks = [part for part in (models.denoiser, models.guide) if part is not None]
        compile_networks(networks, setup.denoiser, walk_size(models.device, cfg.batch_size), models.device)
    return setup


def arrange(
    models: Models,
    sampler: Sampler,
    labels: object,
    guidance: float,
    guidance_interval: Sequence[float] | None,
    seed: int,
) -> Setup:
    """As `set_up`, by the settings of these names; a ValueError if one does not fit the model."""
    model, checkpoint = models.denoiser, models.checkpoint
    denoiser = guided(model, guidance, models.guide, guidance_interval)
    sampler.check(denoiser)
    names, counts = checkpoint.get("class_names"), checkpoint.get("class_counts")
    chosen = choose_labels(labels, model.num_classes, names, counts, seed)
    return Setup(denoiser, sampler, chosen, names, models.device, checkpoint.get("global_step", 0), models.precision)


def choose_device(name: str) -> str:
    """The device that `name` means on this machine; of several processes there, `cuda` is one of its own for each.

    Raises:
        ValueError: if it has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cuda", *(f"cuda:{i}" for i in range(count)), "cpu"] if count else ["cpu"]
    chosen = known[0] if name == "auto" else name
    if chosen not in known:
        raise ValueError(f"device={name} is not available here; choose auto or one of: {', '.join(known)}")
    return f"cuda:{dist.get_rank() % count}" if chosen == "cuda" and dist.is_initialized() else chosen


def walk_size(device: str, batch_size: int) -> int:
    """How many images walk from noise to data together: `batch_size` on a GPU, always as many on a CPU."""
    return CPU_BATCH if torch.device(device).type == "cpu" else batch_size


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
    labels: Labels | None,
    seed: int,
    device: torch.device | str = "cpu",
    interpolate: int | None = None,
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """One batch of images, uint8 [B, C, H, W]: `sampled` from the model, with the same arguments, and decoded."""
    settings = (indices, labels, seed, device, interpolate, on_step)
    return denoiser.space.decode(sampled(denoiser, sampler, *settings))


def sampled(
    denoiser: BaseDenoiser,
    sampler: Sampler,
    indices: Sequence[int],
    labels: Labels | None,
    seed: int,
    device: torch.device | str = "cpu",
    interpolate: int | None = None,
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """One batch of x_0, what the model works on, [B, C, H, W].

    Args:
        denoiser, sampler: the model, guided or not, in evaluation mode, on `device`, and how to sample.
        indices: which images: number i is the same in any batch.
        labels: image i is of the class `labels[i]`; None where there are no classes.
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
    return sampler(denoiser, noise, condition, on_step)
