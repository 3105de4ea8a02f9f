"""A trained model in a program: images as tensors and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from diffusion_lit.checkpoint import find_checkpoint
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.drawing import draw
from diffusion_lit.generate import Models, arrange, load_models
from diffusion_lit.picture.grid import picture_of
from diffusion_lit.picture.image import as_array
from diffusion_lit.sampler import Sampler

__all__ = ["TrainedModel", "load"]


class TrainedModel:
    """A model as a run has trained it.

    Args:
        models: the model, and a worse one to be guided away from, as `load_models` gives them.
        file: its checkpoint.
    """

    def __init__(self, models: Models, file: Path) -> None:
        self.models, self.file = models, file

    @property
    def denoiser(self) -> Denoiser:
        """The model itself, a torch module: `denoiser(x_t, t, condition)` predicts x_0, eps, v and the score."""
        return self.models.denoiser

    @property
    def config(self) -> dict[str, Any]:
        """All settings that it was trained with."""
        config: dict[str, Any] = self.models.checkpoint["config"]
        return config

    @property
    def step(self) -> int:
        """How many optimizer steps it was trained for."""
        return int(self.models.checkpoint.get("global_step", 0))

    @property
    def class_names(self) -> list[str] | None:
        """What its classes are called, if that is known."""
        names: list[str] | None = self.models.checkpoint.get("class_names")
        return names

    def __repr__(self) -> str:
        c, h, w = self.denoiser.image_shape
        count = self.denoiser.num_classes
        classes = "no classes" if count is None else f"{count} classes"
        return f"TrainedModel({self.file}, step {self.step}, {c} x {h} x {w}, {classes}, on {self.models.device})"

    def sample(
        self,
        num_images: int = 16,
        *,
        labels: object = None,
        sampler: str | Sampler = "ddim",
        num_steps: int | None = None,
        guidance: float = 1.0,
        guidance_interval: Sequence[float] | None = None,
        seed: int = 0,
        offset: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Images, those of the `sample` command with the same settings: uint8 [N, H, W, C] on the CPU.

        Args:
            num_images: how many.
            labels: a class's name or number, or a list of them to take in turn; None takes all in turn, `uniform`
                draws each, `data` has the training set's proportions.
            sampler: a name of `conf/sampler`, with the settings there, or an object such as `DDIMSampler(50, eta=1,
                clip=1)`, whose own defaults hold (they do not clip).
            num_steps: of a sampler that is given by its name; None is its own number.
            guidance: scale of classifier-free guidance; 1 does not guide.
            guidance_interval: (low, high) of sigma / alpha between which there is guidance; None guides everywhere.
            seed: of the noise; image i is a function of the seed and of i.
            offset: i of the first image.
            batch_size: images at a time on a GPU; a CPU takes 16.

        Raises:
            ValueError: if a setting is wrong, or does not fit the model.
        """
        chosen = (labels, sampler, num_steps, guidance, guidance_interval, seed, offset, batch_size)
        return self.drawn(num_images, *chosen)[0].permute(0, 2, 3, 1).contiguous()

    def grid(
        self,
        num_images: int = 16,
        *,
        labels: object = None,
        sampler: str | Sampler = "ddim",
        num_steps: int | None = None,
        guidance: float = 1.0,
        guidance_interval: Sequence[float] | None = None,
        seed: int = 0,
        offset: int = 0,
        batch_size: int = 64,
        columns: int | None = None,
    ) -> Image.Image:
        """One picture of what `sample` gives for the same arguments, with the classes above; a notebook shows it.

        `columns` says how many images are in a row; None chooses it as the `sample` command does.
        """
        chosen = (labels, sampler, num_steps, guidance, guidance_interval, seed, offset, batch_size)
        images, classes = self.drawn(num_images, *chosen)
        return Image.fromarray(as_array(picture_of(images, classes, self.class_names, columns)))

    def drawn(
        self,
        num_images: int,
        labels: object,
        sampler: str | Sampler,
        num_steps: int | None,
        guidance: float,
        guidance_interval: Sequence[float] | None,
        seed: int,
        offset: int,
        batch_size: int,
    ) -> tuple[Tensor, list[int] | None]:
        """Images, uint8 [N, C, H, W], and their classes."""
        if num_images < 1 or batch_size < 1 or offset < 0:
            given = f"{num_images}, {batch_size} and {offset}"
            raise ValueError(f"need num_images and batch_size of at least 1 and offset of at least 0, got {given}")
        solver = sampler_of(sampler, num_steps)
        asked = labels.tolist() if isinstance(labels, Tensor) else labels
        setup = arrange(self.models, solver, asked, guidance, guidance_interval, seed)
        indices = range(offset, offset + num_images)
        images = torch.cat([batch for _, batch in draw(setup, indices, setup.by_index, seed, batch_size)])
        return images, setup.labels(indices)


def sampler_of(sampler: str | Sampler, num_steps: int | None) -> Sampler:
    """The sampler that a name, or the object itself, means; a ValueError if there is none, or it has its own steps."""
    if isinstance(sampler, Sampler):
        if num_steps is not None:
            raise ValueError(f"{type(sampler).__name__} has its own number of steps: leave num_steps={num_steps} out")
        return sampler
    known = sorted(path.stem for path in (CONFIG_FOLDER / "sampler").glob("*.yaml"))
    if sampler not in known:
        raise ValueError(f"sampler={sampler!r} is none of {', '.join(known)}, nor a Sampler")
    settings = OmegaConf.load(CONFIG_FOLDER / "sampler" / f"{sampler}.yaml")
    if num_steps is not None:
        settings.num_steps = num_steps
    chosen: Sampler = instantiate(settings)
    return chosen


def load(
    path: str | Path,
    *,
    weights: str = "ema",
    device: str = "auto",
    precision: str | None = None,
    guide: str | Path | None = None,
    autoencoder: str | Path | None = None,
    allow: Sequence[str] = (),
) -> TrainedModel:
    """The model of a run.

    Args:
        path: a run's folder (its newest checkpoint) or a checkpoint file; needs nothing else.
        weights: `ema`, the averaged ones, `raw`, another average's name, or `power_0.13`, made of snapshots.
        device: `cpu`, `cuda` or `auto`, a GPU where there is one.
        precision: what the network runs in, `32-true`, `bf16-mixed` or another of Lightning's names; None is the run's
            own.
        guide: a worse model, a run or checkpoint, to be guided away from (autoguidance); None takes the model without
            labels.
        autoencoder: another place of a latent model's autoencoder.
        allow: modules or packages of one's own whose classes the checkpoint may name; it can name no others.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if it is not a checkpoint of ours, names a class that is not allowed, or lacks the weights.
    """
    settings = {"ckpt": path, "guide": guide, "autoencoder": autoencoder}
    places = {key: None if value is None else str(value) for key, value in settings.items()}
    options = {"weights": weights, "device": device, "precision": precision, "allow": list(allow)}
    return TrainedModel(load_models(OmegaConf.create(places | options)), find_checkpoint(path))
