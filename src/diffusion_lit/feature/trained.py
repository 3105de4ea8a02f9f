"""A classifier's network, and the file that it is kept in."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.feature.convnet import ConvNet, train
from diffusion_lit.feature.precision import full_precision
from diffusion_lit.feature.reservoir import reservoir
from diffusion_lit.files import replacing
from diffusion_lit.trust.tensor_file import load_tensors

log = logging.getLogger(__name__)

MAX_IMAGES = 50_000
"""As many of the images are held in memory, 150 MB."""
HELD_OUT = 10
"""One in so many images is not trained on."""


@dataclass(frozen=True)
class Trained:
    """A network, and the share of the images that it did not see whose class it finds."""

    network: ConvNet
    accuracy: float

    @classmethod
    @torch.inference_mode(False)
    @torch.enable_grad()
    def on(cls, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int, seed: int, num_images: int) -> "Trained":
        """Train on images uint8 [B, C, H, W] and their labels int64 [B], on the CPU."""
        images, labels = reservoir(batches, MAX_IMAGES, seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images), generator=generator)
        held, seen = order[::HELD_OUT], order[torch.arange(len(order)) % HELD_OUT > 0]
        with torch.random.fork_rng(devices=[]), full_precision("cpu"):
            torch.manual_seed(seed)
            network = ConvNet(num_classes)
            train(network, images[seen], labels[seen], num_images, generator)
            parts = held.tensor_split(-(-len(held) // 1000))
            hits = torch.cat([network(images[part]).argmax(1) == labels[part] for part in parts])
        accuracy = float(hits.float().mean())
        log.info("trained feature=classifier; it recognises %.1f%% of %d held-out images", 100 * accuracy, len(hits))
        return cls(network, accuracy)

    @classmethod
    def read(cls, path: Path, num_classes: int) -> "Trained | None":
        """The network in a file; None, with a warning, if that is damaged."""
        try:
            stored = load_tensors(path, "is damaged")
            with torch.device("meta"):  # its weights are the file's
                network = ConvNet(num_classes)
            network.load_state_dict(stored["weights"], assign=True)
            trained = cls(network.eval().requires_grad_(False), float(stored["accuracy"]))
            if stored["sha256"] != trained.sha256():
                raise ValueError("its weights have another checksum")
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            [reason, *_] = str(error).splitlines() or [type(error).__name__]
            log.warning("%s cannot be read, and the classifier is trained anew (%s)", path, reason)
            return None
        return trained

    def write(self, path: Path) -> None:
        with replacing(path) as file:
            weights = self.network.state_dict()
            torch.save({"weights": weights, "accuracy": self.accuracy, "sha256": self.sha256()}, file)

    def sha256(self) -> str:
        """Checksum of the weights."""
        content = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()
