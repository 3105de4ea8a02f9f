"""Which images a `sample` is to draw, and in which formats."""

from collections.abc import Sequence

from omegaconf import DictConfig

from diffusion_lit.command_line.shell import key_of
from diffusion_lit.picture.grid import MAX_SHOWN
from diffusion_lit.picture.image import file_kind

__all__ = ["FORMATS", "check_channels", "formats_of", "indices_of"]

FORMATS = ("grid", "png", "npy", "npz", "zip", "shards")


def formats_of(cfg: DictConfig) -> list[str]:
    """What `format=` asks for; a ValueError if there is no such format."""
    formats = [cfg.format] if isinstance(cfg.format, str) else list(cfg.format)
    if not formats or set(formats) - set(FORMATS):
        raise ValueError(f"format must be {', '.join(FORMATS)} or a list of these, got {cfg.format}")
    return formats


def check_channels(formats: Sequence[str], channels: int) -> None:
    """Raise a ValueError if images of so many channels are not written in one of these formats."""
    kind = file_kind(channels)
    for name in formats:
        if name in ("png", "zip") and kind != "png":
            raise ValueError(
                f"format={name} has up to 4 channels, and the model draws {channels}: use format=npy, an array "
                "[H, W, C] for each image, or format=npz"
            )
        if name == "npy" and kind == "png":
            raise ValueError(
                f"format=npy is for images of more than 4 channels, and the model draws {channels}: use format=png, "
                "which has them without loss, or format=npz"
            )


def indices_of(cfg: DictConfig, overrides: Sequence[str]) -> Sequence[int]:
    """The images that are asked for; a ValueError if a number is out of range, or a setting would be ignored."""
    if cfg.num_samples < 1 or cfg.batch_size < 1 or cfg.offset < 0:
        given = f"{cfg.num_samples}, {cfg.batch_size} and {cfg.offset}"
        raise ValueError(f"need num_samples and batch_size of at least 1 and offset of at least 0, got {given}")
    if cfg.interpolate is not None and cfg.interpolate < 2:
        raise ValueError(f"interpolate is how many images lead from noise to noise, 2 or more; got {cfg.interpolate}")
    indices: Sequence[int] = range(cfg.offset, cfg.offset + cfg.num_samples)
    if cfg.indices is not None:
        if ignored := [key for key in map(key_of, overrides) if key in ("num_samples", "offset")]:
            raise ValueError(f"indices= says which images, and {' and '.join(ignored)} would be ignored; leave it out")
        asked = list(cfg.indices)
        numbers = [i for i in asked if isinstance(i, int) and not isinstance(i, bool) and i >= 0]
        if not asked or len(set(numbers)) < len(asked):
            raise ValueError(f"indices must be whole numbers from 0, each once, such as [0,17,4]; got {asked}")
        indices = numbers
    formats = formats_of(cfg)
    if "shards" in formats and len(indices) < 3:
        raise ValueError(f"format=shards takes at least 3 images, one for each split; got {len(indices)}")
    if {*formats} == {"grid"} and len(indices) > MAX_SHOWN:
        raise ValueError(
            f"format=grid shows {MAX_SHOWN} images at most, and the others of {len(indices)} would be drawn and thrown "
            "away: use format=[grid,png], or npz, zip or shards, to have them all"
        )
    if cfg.caption and "grid" not in formats:
        raise ValueError(
            f"caption=true writes below a grid, and would be ignored with format={cfg.format}; leave it out"
        )
    return indices
