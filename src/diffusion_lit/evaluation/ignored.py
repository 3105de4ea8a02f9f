"""Settings that nothing would read: refused, since whoever gives one expects it to matter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.shell import key_of
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.prepared_set import PreparedSet
from diffusion_lit.evaluation.reference import copying, needs_real
from diffusion_lit.source.layout import SPLITS

__all__ = ["DRAWN", "OF_MODEL", "check_nothing_drawn", "check_read"]

DRAWN = {
    *("num_samples", "steps", "labels", "guidance", "guide", "guidance_interval", "weights", "seed", "precision"),
    *("compile", "sampler"),
}
"""Settings of images that are drawn."""
OF_MODEL = ("ckpt", "step", "weights", "precision")
"""What likelihoods follow, too."""


def check_nothing_drawn(likelihoods: Mapping[str, Likelihood], overrides: Sequence[str]) -> None:
    """Raise a ValueError for settings of drawn images, where all figures are of the model itself."""
    if ignored := [key for key in map(key_of, overrides) if key.split(".")[0] in DRAWN.difference(OF_MODEL)]:
        raise ValueError(
            f"{', '.join(likelihoods)} are of the model itself, and no images are drawn: {', '.join(ignored)} would be "
            "ignored; leave out, or add a metric of images"
        )


def check_read(cfg: DictConfig, overrides: Sequence[str], chosen: Mapping[str, Any]) -> None:
    """Raise a ValueError for settings that neither the metrics nor the images of `cfg` have a use for."""
    given = [key.split(".")[0] for key in map(key_of, overrides)]
    against = None if str(cfg.against) in SPLITS else cfg.against
    files = [str(path) for path in (cfg.samples, against, cfg.training) if path is not None]
    unread = {
        "against": (
            "none of the metrics reads real images",
            "against" in given and not needs_real(chosen),
        ),
        "channels": (
            "no image files are read, and arrays and prepared sets have their own",
            cfg.channels is not None and all(path.endswith(".npz") or PreparedSet.is_one(Path(path)) for path in files),
        ),
        "autoencoder": ("no model is read, without ckpt=", cfg.autoencoder is not None and cfg.ckpt is None),
        "pairs": (
            "none of the metrics reads training images",
            "pairs" in given and cfg.pairs > 0 and not copying(chosen),
        ),
        "feature": (
            "none of the metrics takes its features from it",
            "feature" in given and "${feature" not in OmegaConf.to_yaml(cfg.metrics),
        ),
    }
    for name, (reason, ignored) in unread.items():
        if ignored:
            typed = [override for override, key in zip(overrides, given, strict=True) if key == name]
            raise ValueError(f"{', '.join(typed) or name} would be ignored: {reason}; leave it out")
