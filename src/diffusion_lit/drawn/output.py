"""What `sample` leaves: of single images a grid, an array, an archive or a prepared set, as its `format=` asks."""

from collections.abc import Sequence

import torch
from omegaconf import DictConfig

from diffusion_lit.counted import counted
from diffusion_lit.drawn.archive import save_shards, save_zip
from diffusion_lit.drawn.folder import ImageFiles, SampleFolder
from diffusion_lit.drawn.request import formats_of
from diffusion_lit.generate import Setup
from diffusion_lit.picture.grid import MAX_SHOWN, picture_of
from diffusion_lit.picture.image import save_image, save_npz, seen_as
from diffusion_lit.sampler import ODESampler

__all__ = ["FILES", "write_outputs"]

FILES = {"grid": "grid.png", "npz": "samples.npz", "zip": "samples.zip"}


def write_outputs(
    cfg: DictConfig, setup: Setup, folder: SampleFolder, indices: Sequence[int], labels: list[int] | None
) -> None:
    """Write each format of `cfg`, one image in memory at a time but for the grid's, and say where they are.

    Args:
        cfg, setup: the settings of `sample`, and what they mean.
        folder: which has all images as single files.
        indices, labels: of the images; labels are None where the model has no classes.
    """
    formats, out = formats_of(cfg), folder.out
    images, files = ImageFiles(folder, indices), [folder.file(i) for i in indices]
    print(f"{counted(len(indices), 'image')} from {cfg.ckpt} ({cfg.weights} weights)")
    if "grid" in formats:
        save_grid(cfg, setup, folder, indices[:MAX_SHOWN], None if labels is None else labels[:MAX_SHOWN])
        notes = [f"the first {MAX_SHOWN} of {len(indices)}"] if len(indices) > MAX_SHOWN else []
        notes += [seen_as(len(next(iter(images))))]
        print(f"  {out / FILES['grid']}{f' ({shown})' if (shown := ', '.join(filter(None, notes))) else ''}")
    if folder.kind in formats:
        print(f"  {folder.images}")
    if "npz" in formats:
        save_npz(images, labels, out / FILES["npz"])
        print(f"  {out / FILES['npz']}")
    if "zip" in formats:
        save_zip(files, indices, labels, out / FILES["zip"])
        print(f"  {out / FILES['zip']}")
    if "shards" in formats:
        numbers = [str(i) for i in range(setup.denoiser.num_classes or 0)]
        save_shards(files, labels, None if labels is None else setup.class_names or numbers, out / "shards")
        print(f"  {out / 'shards'}")
    folder.close()


def save_grid(
    cfg: DictConfig, setup: Setup, folder: SampleFolder, indices: Sequence[int], labels: list[int] | None
) -> None:
    images = torch.stack(list(ImageFiles(folder, indices)))
    caption = caption_of(cfg, setup) if cfg.caption else None
    grid = picture_of(images, labels, setup.class_names, cfg.interpolate, caption)
    save_image(grid, folder.out / FILES["grid"])


def caption_of(cfg: DictConfig, setup: Setup) -> str:
    """How the images were drawn, on a line."""
    sampler = setup.sampler
    name = type(sampler).__name__.removesuffix("Sampler")
    steps = f"to {sampler.rtol:g}" if isinstance(sampler, ODESampler) else f"in {counted(setup.num_steps, 'step')}"
    return f"step {setup.step}, {name} {steps}, guidance {cfg.guidance:g}, seed {cfg.seed}"
