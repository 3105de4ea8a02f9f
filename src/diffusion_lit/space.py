"""What the numbers that a model works on are: pixels, or the latents of an autoencoder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_lit.autoencoder import Autoencoder
from diffusion_lit.picture.image import from_uint8, to_uint8

__all__ = ["LatentSpace", "PixelSpace", "Space", "latent_space", "relocate"]


class Space(ABC):
    """Between what a data module stores, what a model works on, and images.

    Not a module: it has nothing to train, and nothing to keep in a checkpoint but its configuration. Two spaces are
    equal if their numbers mean the same.
    """

    name: str
    """What is in it."""
    suffix: str
    """Goes into the name of a metric of images: figures from different spaces cannot be compared."""
    bounded: bool
    """Whether x_0 is a multiple of 2 / 255 in [-1, 1]: what clipping and likelihoods of 8-bit images assume."""

    @abstractmethod
    def encode(self, stored: Tensor) -> Tensor:
        """What is stored, [B, C, H, W], to x_0, float32, likewise."""

    @abstractmethod
    def decode(self, x_0: Tensor) -> Tensor:
        """x_0 to images, uint8 [B, C, H, W]."""

    @abstractmethod
    def images(self, stored: Tensor) -> Tensor:
        """What is stored to images, uint8 [B, C, H, W]."""

    def image_channels(self, channels: int) -> int:
        """How many channels images have whose x_0 has so many."""
        return channels

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """All that decides the images that numbers are decoded to, plain values; None where they are images already."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Raise now, and not after hours, what `decode` would: a ValueError or FileNotFoundError."""

    def config(self) -> dict[str, Any]:
        """What `hydra.utils.instantiate` makes it of again."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {"_target_": f"{type(self).__module__}.{type(self).__name__}", **values}


@dataclass(frozen=True)
class PixelSpace(Space):
    """Images are stored as bytes, and x_0 is in [-1, 1]."""

    name = "images"
    suffix = ""
    bounded = True

    def encode(self, stored: Tensor) -> Tensor:
        return from_uint8(stored)

    def decode(self, x_0: Tensor) -> Tensor:
        return to_uint8(x_0)

    def images(self, stored: Tensor) -> Tensor:
        return stored

    def check(self) -> None:
        pass


@dataclass(frozen=True)
class LatentSpace(Space):
    """An autoencoder's latents are stored, and x_0 = (stored - shift) scale (Rombach et al. 2022, arXiv:2112.10752).

    Where images are stored, as bytes, they are encoded to the latents that `prepare` would store. The autoencoder is
    loaded when it is first needed: training on stored latents needs it for pictures and metrics alone.

    Args:
        autoencoder: its folder, as diffusers writes it. The same autoencoder in another place is the same space.
        scale: about 1 / the latents' standard deviation.
        shift: about their mean.
        sha256: of the file with its weights, so that no other autoencoder decodes; None takes any.

    Raises:
        ValueError: if `scale` is not positive.
    """

    autoencoder: str = field(compare=False)
    scale: float
    shift: float = 0.0
    sha256: str | None = None

    name = "latents"
    suffix = "_decoded"
    bounded = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"the scale of latents must be positive, got {self.scale}; 1 / their std is usual")

    @cached_property
    def decoder(self) -> Autoencoder:
        return Autoencoder(self.autoencoder, self.sha256)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of the decoder, too: autoencoders may share an encoder, and a model trained elsewhere names none."""
        return {"sha256": self.decoder.sha256, "scale": self.scale, "shift": self.shift}

    def latents(self, stored: Tensor) -> Tensor:
        """Latents as they are stored, float16, or those of images, uint8."""
        return stored if stored.is_floating_point() else self.decoder.encode(stored).half()

    def encode(self, stored: Tensor) -> Tensor:
        return (self.latents(stored).float() - self.shift) * self.scale

    def decode(self, x_0: Tensor) -> Tensor:
        return self.decoder.decode(x_0.float() / self.scale + self.shift)

    def images(self, stored: Tensor) -> Tensor:
        return self.decoder.decode(self.latents(stored))

    def image_channels(self, channels: int) -> int:
        return int(self.decoder.config["in_channels"])

    def check(self) -> None:
        assert self.decoder.network is not None


def latent_space(folder: str | Path) -> LatentSpace:
    """The space of the latents of an autoencoder in a folder."""
    autoencoder = Autoencoder(folder)
    return LatentSpace(str(Path(folder).resolve()), autoencoder.scale, autoencoder.shift, autoencoder.sha256)


def relocate(space: Mapping[str, Any], autoencoder: str | Path | None) -> dict[str, Any]:
    """A space's configuration, with its autoencoder in another folder, if given; a ValueError if it has none."""
    if autoencoder is None:
        return dict(space)
    if "autoencoder" not in space:
        raise ValueError(f"autoencoder={autoencoder} would be ignored: this model works on pixels; leave it out")
    return {**space, "autoencoder": str(autoencoder)}
