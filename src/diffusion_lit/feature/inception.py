"""The Inception-v3 that published FIDs are made with."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.feature.base import FeatureExtractor, to_colour
from diffusion_lit.tensor_file import load_tensors

FILE = "weights-inception-2015-12-05-6726825d.pth"


class Inception(FeatureExtractor):
    """2048 features of the TensorFlow Inception-v3 of 2015 (Heusel et al. 2017, arXiv:1706.08500), by torch-fidelity.

    Images are resized to 299 as TensorFlow 1 does, without antialiasing: that is what published figures use.

    Args:
        weights: a local copy of torch-fidelity's file `weights-inception-2015-12-05-6726825d.pth`; None takes it from
            torch's hub cache, and downloads it where it is not there.

    Raises:
        FileNotFoundError: if the weights are not there and cannot be fetched.
        ValueError: if the file is damaged, or holds more than weights.
    """

    name = "inception"

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        path = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if weights is not None and not path.is_file():
            raise FileNotFoundError(f"feature.weights={weights} does not exist; it should be a copy of {FILE}")
        if path.is_file():  # torch-fidelity would run what a pickle names
            load_tensors(path, f"is damaged, or is not {FILE}; fetch it again")
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights, antialias=False)
        except OSError as error:
            raise FileNotFoundError(
                f"FID needs Inception weights: {path} is not there and could not be downloaded ({error}). Copy {FILE} "
                "there, or name it with feature.weights=PATH, or choose feature=random_vgg or feature=pixels"
            ) from error
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged, or is not {FILE}; fetch it again") from error
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(to_colour(images))
