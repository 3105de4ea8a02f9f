"""What the settings of the `prepare` command mean."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.preparation.maker import STORES, encoding_for
from diffusion_lit.preparation.workspace import Workspace
from diffusion_lit.prepared.manifest import ENCODINGS, MAX_RESOLUTION
from diffusion_lit.resolution import height_and_width, shortest
from diffusion_lit.source.archive import COMPRESSED, TarSource, ZipSource, decompressed
from diffusion_lit.source.base import Source
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.hugging_face import HuggingFaceSource
from diffusion_lit.source.image_file import Reading
from diffusion_lit.source.layout import check_val_fraction
from diffusion_lit.source.torchvision import TorchvisionSource

__all__ = ["open_source", "reading_of"]


def reading_of(cfg: DictConfig) -> tuple[Reading, str]:
    """How images are to be read, and how stored; a ValueError if a setting has no such value."""
    needed = ("source", "out", "resolution")
    if missing := [key for key in needed if OmegaConf.is_missing(cfg, key) or cfg[key] is None]:
        raise ValueError(f"say what to prepare, and where: {' '.join(f'{key}=' for key in missing)} is not given")
    if max(sides := height_and_width(cfg.resolution)) > MAX_RESOLUTION:
        raise ValueError(f"resolution must be at most {MAX_RESOLUTION}, got {cfg.resolution}")
    resolution = shortest(*sides)
    reading = Reading(resolution, cfg.channels, cfg.fit, cfg.filter, cfg.max_pixels).check()
    if cfg.encoding not in ("auto", *ENCODINGS):
        raise ValueError(f"encoding must be one of auto, {', '.join(ENCODINGS)}, got {cfg.encoding}")
    for key in ("workers", "shard_megabytes"):
        if not isinstance(cfg[key], int) or cfg[key] < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, got {cfg[key]}")
    if not isinstance(cfg.max_unreadable, int | float) or not 0 <= cfg.max_unreadable <= 1:
        raise ValueError(f"max_unreadable is a share of the images, a number from 0 to 1, got {cfg.max_unreadable}")
    check_val_fraction(cfg.val_fraction)
    encoding = cfg.encoding
    if encoding == "auto":
        encoding = "raw" if cfg.latents else encoding_for(reading)
    if cfg.latents and encoding != "raw":
        raise ValueError(f"latents are stored raw; encoding={encoding} is for images, leave it at auto")
    if not cfg.latents and reading.channels not in STORES.get(encoding, (reading.channels,)):
        raise ValueError(f"encoding={encoding} does not store channels={reading.channels}; use encoding=raw")
    return reading, encoding


def open_source(cfg: DictConfig, workspace: Workspace) -> Source:
    """The images that `source=` means; what has to be kept of them while preparing is kept in the workspace.

    Raises:
        ValueError: if there is no such kind of source, or it cannot be opened.
        FileNotFoundError: if it is not there.
    """
    kind, colon, name = str(cfg.source).partition(":")
    if colon and kind in ("torchvision", "hf") and not name:
        raise ValueError(
            f"source={cfg.source} names no dataset: give one, such as torchvision:CIFAR10 or hf:OWNER/NAME"
        )
    for column in ("image_column", "label_column"):
        if cfg[column] is not None and not (colon and kind == "hf"):
            raise ValueError(f"{column}={cfg[column]} is for source=hf:NAME, and would be ignored: leave it out")
    if colon and kind == "torchvision":
        return TorchvisionSource(name, Path(cfg.root), cfg.download, cfg.val_fraction)
    if colon and kind == "hf":
        return HuggingFaceSource(name, (cfg.image_column, cfg.label_column), cfg.val_fraction)
    path = Path(str(cfg.source))
    if path.is_dir():
        return FolderSource(path, cfg.val_fraction)
    if not path.is_file():
        raise FileNotFoundError(
            f"source={cfg.source} is not there; give a folder, a .zip or .tar file, hf:NAME or torchvision:NAME"
        )
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return ZipSource(path, cfg.val_fraction)
    if suffix in COMPRESSED:
        workspace.make()
        try:
            return TarSource(decompressed(path, workspace.work), cfg.val_fraction, str(path))
        except ValueError:
            workspace.leave()
            raise
    if suffix == ".tar":
        return TarSource(path, cfg.val_fraction)
    raise ValueError(f"source={cfg.source}: a file must end in .zip, .tar, {', '.join(COMPRESSED)}; else give a folder")
