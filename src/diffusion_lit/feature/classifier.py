"""A classifier of the dataset's own classes."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock
from torch import Tensor

from diffusion_lit.feature.base import Classifier
from diffusion_lit.feature.convnet import MIN_RESOLUTION, RESOLUTION, WIDTH, ConvNet, shrunk
from diffusion_lit.feature.precision import full_precision
from diffusion_lit.feature.trained import Trained

RECIPE = 1
"""Raised whenever the network or its training changes: what another recipe has cached is not read."""


class LabelClassifier(Classifier):
    """128 features of a small convolutional network that was trained to tell the dataset's classes apart.

    For images unlike ImageNet's, such as digits: its classes are those that a model is conditioned on, so that it can
    say whether a sample shows what was asked for. `prepare` trains it once, in about a minute or less, and caches it by
    the images' content; a tenth of them is held out to measure its accuracy. Figures compare only where the weights'
    checksum is the same.

    Args:
        seed: seed of the weights and of the order of images.
        num_images: how many images it sees in training, repeats counted.
        cache: folder of trained classifiers; None is `~/.cache/diffusion-lit/classifier`.
    """

    name = "classifier"
    num_features = WIDTH
    learns = True
    sees = f"its own size, at most {RESOLUTION} x {RESOLUTION} (bilinear, antialiased, rounded to bytes), [-1, 1]"

    def __init__(self, seed: int = 0, num_images: int = 100_000, cache: str | None = None) -> None:
        super().__init__()
        if num_images < 1:
            raise ValueError(f"feature.num_images must be at least 1, got {num_images}; 100000 is usual")
        self.seed, self.num_images = seed, num_images
        self.cache = Path(cache) if cache is not None else Path.home() / ".cache" / "diffusion-lit" / "classifier"
        self.network: ConvNet | None = None
        self.accuracy: float | None = None

    def check(self, channels: int, height: int, width: int) -> None:
        super().check(channels, height, width)
        if min(height, width) < MIN_RESOLUTION:
            raise ValueError(
                f"feature=classifier needs images of at least {MIN_RESOLUTION} pixels a side, got {height} x {width}; "
                "use feature=pixels"
            )

    def prepare(
        self, training: Iterable[tuple[Tensor, Tensor | None]], num_classes: int | None, content_hash: str
    ) -> None:
        """Train the network, or read it from the cache. It is on the CPU then: move the extractor afterwards.

        Raises:
            ValueError: if the images do not have labels of at least 2 classes, or the cache cannot be written to.
        """
        if num_classes is None or num_classes < 2:
            raise unlabelled("no classes" if num_classes is None else f"{num_classes} class")
        facts = json.dumps([RECIPE, content_hash, num_classes, self.seed, self.num_images])
        path = self.cache / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.pt"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock").acquire()  # of several processes, one trains
        except OSError as error:
            raise ValueError(
                f"feature.cache={self.cache} cannot be written to ({error}); use feature.cache=DIR"
            ) from error
        with lock:
            trained = Trained.read(path, num_classes) if path.is_file() else None
            if trained is None:
                trained = Trained.on(labelled(training), num_classes, self.seed, self.num_images)
                trained.write(path)
        self.network, self.accuracy, self.weights_sha256 = trained.network, trained.accuracy, trained.sha256()

    def protocol(self) -> dict[str, str | int | None]:
        accuracy = None if self.accuracy is None else f"{self.accuracy:.4f}"
        return {**super().protocol(), "seed": self.seed, "held_out_accuracy": accuracy}

    def features(self, images: Tensor) -> Tensor:
        assert self.network is not None, "prepare() comes first"
        return self.network.features(shrunk(images))

    def logits(self, features: Tensor) -> Tensor:
        assert self.network is not None, "prepare() comes first"
        with full_precision(features.device.type):
            return self.network.last(features)


def labelled(batches: Iterable[tuple[Tensor, Tensor | None]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The images whose class is known, shrunk, on the CPU. Raises a ValueError if there are none."""
    found = False
    for images, labels in batches:
        if labels is None:
            break
        known = (labels >= 0).cpu()
        found = found or bool(known.any())
        yield shrunk(images.cpu()[known]), labels.cpu()[known]
    if not found:
        raise unlabelled("no labels")


def unlabelled(what: str) -> ValueError:
    return ValueError(
        f"feature=classifier learns the dataset's classes, and the training images have {what}; "
        "choose feature=random_vgg, feature=dinov2 or feature=inception"
    )
