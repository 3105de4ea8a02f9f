"""The images that generated ones are compared with: the model's own data, or files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.data import ImageDataModule
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.chosen_metrics import Extractors
from diffusion_lit.evaluation.image_files import open_images
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.generate import Setup
from diffusion_lit.metrics import Metric
from diffusion_lit.recorded import trusted_config
from diffusion_lit.source.layout import SPLITS
from diffusion_lit.space import Space

__all__ = ["needs_real", "open_reference", "open_training", "own_data", "prepare", "prepare_extractors"]


@dataclass(frozen=True)
class OwnData:
    """The data that a model was trained on, as its checkpoint names it."""

    data: ImageDataModule
    target: str
    space: Space
    """The model's, with an autoencoder that may have moved."""
    device: str

    def split(self, name: str) -> StoredImages:
        """One of its splits as images; a ValueError if these come in no order."""
        images = self.data.splits[name]
        if not hasattr(images, "fetch"):
            raise ValueError(
                f"{self.target} streams its images, which come in no order to take {name} from: prepare the set "
                "(diffusion_lit.prepare), and name its images by against= and training="
            )
        described = {"data": self.target, "split": name, "resolution": self.data.resolution, **self.data.facts()}
        return StoredImages(images, described, None if self.space.bounded else self.decode)

    def decode(self, stored: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.space.images(stored.to(self.device))


def open_own_data(
    checkpoint: dict[str, Any], origin: str, root: str | None, space: Space, device: str, allow: Sequence[str]
) -> OwnData:
    """The data of a checkpoint, ready to be read.

    Args:
        checkpoint: what it holds.
        origin: its file, for messages.
        root: where the data is now; None means where it was in training.
        space, device: of the model.
        allow: modules of one's own whose classes it may name.

    Raises:
        ValueError: if what it names is not trusted, or has no such place.
        FileNotFoundError: if the data is not there.
    """
    config = trusted_config({"data": checkpoint["config"].get("data"), "run_dir": "."}, origin, allow).data
    key = next((name for name in ("root", "urls") if name in config), None)
    if root is not None:
        if key != "root":
            raise ValueError(f"data_root={root} would be ignored: the model's data {config._target_} has no root")
        config.root = root
    elif key == "root" and config.root and not Path(config.root).is_absolute() and "://" not in config.root:
        config.root = str(Path(checkpoint.get("started_in") or ".") / config.root)
    try:
        data: ImageDataModule = instantiate(config)
        data.prepare_data()
        data.setup()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}\n(the data that {origin} was trained on; data_root=PATH names it)") from error
    return OwnData(data, config._target_, space, device)


def open_reference(named: str, option: str, own: OwnData | None) -> StoredImages:
    """A split of the model's own data, or the images of a file or folder.

    Raises:
        ValueError: if there is neither such a split nor such a file, or it cannot be read.
        FileNotFoundError: if the file does not exist.
    """
    if named not in SPLITS:
        return open_images(named, option)
    if own is None:
        raise ValueError(
            f"{option}={named} is a split of a model's data, and no ckpt= says of which: give {option}=PATH of real "
            "images, or the model too"
        )
    return own.split(named)


def needs_real(chosen: Mapping[str, Any]) -> bool:
    return any(isinstance(metric, Likelihood) or metric.needs_real for metric in chosen.values())


def own_data(cfg: DictConfig, setup: Setup, metrics: Mapping[str, Metric]) -> OwnData | None:
    """The data that the model was trained on, if anything is to be taken from it."""
    learned = any(metric.needs_training for metric in metrics.values()) and cfg.training is None
    if str(cfg.against) not in SPLITS and not learned:
        return None
    checkpoint = load_checkpoint(cfg.ckpt)
    space = setup.denoiser.space
    return open_own_data(checkpoint, str(cfg.ckpt), cfg.data_root, space, setup.device, cfg.allow)


def open_training(cfg: DictConfig, own: OwnData | None, metrics: Mapping[str, Metric]) -> StoredImages | None:
    """The images that the model was trained on, where a metric reads them."""
    asking = [name for name, metric in metrics.items() if metric.needs_training]
    if not asking:
        if cfg.training is not None:
            raise ValueError(f"training={cfg.training} would be ignored: none of the metrics reads it")
        return None
    if str(cfg.against) == "train" or (cfg.training is not None and str(cfg.training) == str(cfg.against)):
        raise ValueError(
            f"{', '.join(asking)} compare training images with others, which against={cfg.against} must be: take "
            "against=test or against=val"
        )
    if cfg.training is not None:
        return open_images(cfg.training, "training")
    if own is None:
        raise ValueError(f"{', '.join(asking)} need the images the model was trained on: training=PATH, or ckpt=")
    return own.split("train")


def prepare_extractors(extractors: Extractors, own: OwnData | None, device: str) -> None:
    """Let extractors that learn do so, and put all of them where they are used.

    Raises:
        ValueError: if one learns from the model's data, and there is none.
    """
    for extractor in extractors.values():
        if extractor.learns:
            if own is None:
                raise ValueError(
                    f"feature={extractor.name} learns from the data that a model was trained on: give ckpt= of one, "
                    "with against=train, val or test"
                )
            prepare(extractor, own.split("train"), own.data.num_classes)
        extractor.to(device)


def prepare(extractor: FeatureExtractor, training: StoredImages, num_classes: int | None) -> None:
    """Let an extractor learn from all training images."""
    extractor.prepare(labelled(training), num_classes, training.content)


def labelled(images: StoredImages) -> Iterator[tuple[Tensor, Tensor | None]]:
    for first in range(0, len(images), 250):
        indices = range(first, min(first + 250, len(images)))
        [batch] = images.batches(indices, 250)
        yield batch, images.labels(indices)
