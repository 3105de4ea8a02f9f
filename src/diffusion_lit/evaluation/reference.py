"""The images that generated ones are compared with: the model's own data, or files."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from diffusion_lit.counted import agreeing
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.chosen_metrics import Extractors
from diffusion_lit.evaluation.class_names import ClassNames
from diffusion_lit.evaluation.image_files import channels_of, open_images
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.evaluation.own_data import OwnData, open_own_data
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.generate import Models
from diffusion_lit.metrics import Metric
from diffusion_lit.source.layout import SPLITS

__all__ = ["copying", "needs_real", "open_real", "open_training", "own_data", "prepare", "prepare_extractors"]


def own_data(
    cfg: DictConfig, models: Models | None, chosen: Mapping[str, Any], extractors: Extractors
) -> OwnData | None:
    """The data that the model was trained on, if anything is to be taken from it.

    Raises:
        ValueError: if there is no model whose data it would be, or a setting would be ignored.
        FileNotFoundError: if the data is not there.
    """
    asking = {
        f"against={cfg.against} is a split of a model's data: give against=PATH of real images": (
            needs_real(chosen) and str(cfg.against) in SPLITS
        ),
        f"{', '.join(copying(chosen))} need the images the model was trained on: give training=PATH": (
            bool(copying(chosen)) and cfg.training is None
        ),
        "feature=classifier learns from a model's training images: choose another feature": (
            any(extractor.learns for extractor in extractors.values())
        ),
    }
    if reasons := [words for words, asked in asking.items() if asked]:
        if models is None:
            raise ValueError(f"{reasons[0]}, or ckpt=RUN_OR_FILE of the model too")
        return open_own_data(models, str(cfg.ckpt), cfg.data_root, cfg.allow)
    ignored = {"data_root": cfg.data_root, "ckpt": cfg.ckpt if cfg.samples is not None else None}
    for name, value in ignored.items():
        if value is not None:
            raise ValueError(f"{name}={value} would be ignored: nothing is taken from a model's own data; leave it out")
    return None


def open_real(
    cfg: DictConfig, models: Models | None, own: OwnData | None, chosen: Mapping[str, Any], classes: ClassNames
) -> StoredImages | None:
    """The images of `cfg.against`, a split of the model's own data or files; None where no metric reads them.

    Raises:
        ValueError: if they cannot be read.
        FileNotFoundError: if there are none.
    """
    if not needs_real(chosen):
        return None
    if str(cfg.against) not in SPLITS:
        return open_images(cfg.against, "against", classes, channels_of(cfg, models))
    assert own is not None
    return own.split(cfg.against)


def open_training(
    cfg: DictConfig, models: Models | None, own: OwnData | None, chosen: Mapping[str, Any], classes: ClassNames
) -> StoredImages | None:
    """The images that the model was trained on; None where no metric reads them.

    Raises:
        ValueError: if they are the images of `cfg.against` too, would be ignored, or cannot be read.
        FileNotFoundError: if there are none.
    """
    asking = copying(chosen)
    if not asking:
        if cfg.training is not None:
            raise ValueError(f"training={cfg.training} would be ignored: none of the metrics reads it")
        return None
    if str(cfg.against) in ("train", str(cfg.training)):
        raise ValueError(
            f"{agreeing(asking, 'needs', 'need')} images that the model was not trained on, and against={cfg.against} "
            "is those that it was: take against=test or against=val"
        )
    if cfg.training is not None:
        return open_images(cfg.training, "training", classes, channels_of(cfg, models))
    assert own is not None
    return own.split("train")


def needs_real(chosen: Mapping[str, Any]) -> bool:
    """Whether real images are read: by a metric, or as new ones for the noise floor of one that looks for copies."""
    return bool(copying(chosen)) or any(isinstance(one, Likelihood) or one.needs_real for one in chosen.values())


def copying(chosen: Mapping[str, Any]) -> list[str]:
    """The metrics that read the images the model was trained on."""
    return [name for name, metric in chosen.items() if isinstance(metric, Metric) and metric.needs_training]


def prepare_extractors(extractors: Extractors, own: OwnData | None, device: str) -> None:
    """Let extractors that learn do so, and put all of them where they are used."""
    for extractor in extractors.values():
        if extractor.learns:
            assert own is not None
            prepare(extractor, own.split("train"), own.data.num_classes)
        extractor.to(device)


def prepare(extractor: FeatureExtractor, training: StoredImages, num_classes: int | None) -> None:
    """Let an extractor learn from all training images."""
    extractor.prepare(training.labelled(), num_classes, training.content)
