"""What images are compared by."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from diffusion_lit.feature.precision import full_precision


class FeatureExtractor(nn.Module, ABC):
    """Maps images uint8 [N, C, H, W], C = 1 or 3 for most, to features float32 [N, d], the same in every run.

    An image's features do not depend on the others of its batch, nor on an autocast that is active around the call.
    """

    name: str
    """Goes into the metric's name: figures from different extractors cannot be compared."""
    num_features: int | None = None
    """d; None until `check` was given the images' shape, where it depends on that."""
    sees: str
    """What becomes of an image before it is read, in words: size, filter, rounding, range."""
    weights_sha256: str | None = None
    """Checksum of the weights; None where they follow from a seed, or there are none."""
    licence: str | None = None
    """Licence of the weights, where others have published them."""
    learns: bool = False
    """Whether `prepare` must come before the first image."""

    def check(self, channels: int, height: int, width: int) -> None:
        """Check, before any image is made, that images of this shape can be read.

        Raises:
            ValueError: if `channels` is neither 1 nor 3, or the extractor has a bound of its own.
        """
        if channels not in (1, 3):
            three = ", and feature=random_vgg feature.first_three=true the first three" if channels > 3 else ""
            raise ValueError(
                f"feature={self.name} reads images of 1 channel (grey) or 3 (colour), got {channels}: feature=pixels "
                f"compares any{three}"
            )

    def prepare(
        self, training: Iterable[tuple[Tensor, Tensor | None]], num_classes: int | None, content_hash: str
    ) -> None:
        """Learn from the images that the model was trained on, if it `learns`; called before the first image is read.

        Args:
            training: batches of all of them, not of one rank's share: uint8 [B, C, H, W], with labels int64 [B]
                (-1: class unknown) or None. It is not iterated where nothing is to be learned.
            num_classes: how many classes there are, or None.
            content_hash: changes with any of the images or labels.
        """

    def protocol(self) -> dict[str, str | int | None]:
        """What somebody needs to know to compute the same features."""
        return {
            "feature": self.name,
            "num_features": self.num_features,
            "sees": self.sees,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
        }

    def forward(self, images: Tensor) -> Tensor:
        with full_precision(images.device.type):
            return self.features(images)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What `forward` returns; it computes it in float32."""


class Classifier(FeatureExtractor):
    """An extractor whose features are read by a last linear layer, which tells classes apart."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """[N, d] -> [N, number of classes], from the features that `forward` gives."""


def to_colour(images: Tensor) -> Tensor:
    """Three channels, grey repeated."""
    return images.expand(-1, 3, -1, -1)
