"""The data that a model was trained on, as its checkpoint names it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.utils import instantiate

from diffusion_lit.data import ImageDataModule
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.generate import Models
from diffusion_lit.space import LatentSpace, Space
from diffusion_lit.trust.recorded import trusted_config

__all__ = ["OwnData", "open_own_data"]


@dataclass(frozen=True)
class OwnData:
    """A model's data, ready to be read."""

    data: ImageDataModule
    target: str
    space: Space
    """The model's, with an autoencoder that may have moved."""
    device: str
    opened: dict[str, StoredImages] = field(default_factory=dict)
    """The splits that were asked for, each of which is read through once."""

    def split(self, name: str) -> StoredImages:
        """One of its splits as images; a ValueError if these come in no order."""
        if name not in self.opened:
            self.opened[name] = self.open(name)
        return self.opened[name]

    def open(self, name: str) -> StoredImages:
        images = self.data.splits[name]
        if not hasattr(images, "fetch"):
            raise ValueError(
                f"{self.target} streams its images, which come in no order to take {name} from: prepare the set "
                "(diffusion_lit.prepare), and name its images by against= and training="
            )
        described = {"data": self.target, "split": name, "resolution": self.data.resolution, **self.data.facts()}
        return StoredImages(images, described, self.space, self.device)


def open_own_data(models: Models, origin: str, root: str | None, allow: Sequence[str]) -> OwnData:
    """The data that a checkpoint names.

    Args:
        models: the model and its checkpoint.
        origin: the checkpoint's file, for messages.
        root: where the data is now; None means where it was in training.
        allow: modules of one's own whose classes it may name.

    Raises:
        ValueError: if what it names is not trusted, or has no such place.
        FileNotFoundError: if the data is not there.
    """
    checkpoint = models.checkpoint
    if checkpoint["config"].get("data") is None:
        raise ValueError(
            f"{origin} does not say what data it was trained on: name images to compare with, against=FOLDER, and "
            "leave out metrics of memorization or give training=FOLDER"
        )
    config = trusted_config({"data": checkpoint["config"].get("data"), "run_dir": "."}, origin, allow).data
    key = next((name for name in ("root", "urls") if name in config), None)
    if root is not None:
        if key != "root":
            raise ValueError(f"data_root={root} would be ignored: the model's data {config._target_} has no root")
        config.root = root
    elif key == "root" and config.root and not Path(config.root).is_absolute() and "://" not in config.root:
        config.root = str(Path(checkpoint.get("started_in") or ".") / config.root)
    if "cache" in config:
        config.cache = None  # this machine's place for what is fetched, whatever the file names
    if config.get("latents") and isinstance(models.denoiser.space, LatentSpace):
        config.latents = models.denoiser.space.autoencoder
    try:
        data: ImageDataModule = instantiate(config)
        data.prepare_data()
        data.setup()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}\n(the data that {origin} was trained on; data_root=PATH names it)") from error
    return OwnData(data, config._target_, models.denoiser.space, models.device)
