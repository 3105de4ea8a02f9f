"""The Inception-v3 that published FIDs are made with."""

import pickle
from collections import OrderedDict

from torch import Tensor, nn

from diffusion_lit.feature.base import Classifier, to_colour
from diffusion_lit.feature.precision import full_precision
from diffusion_lit.feature.weights import PublishedWeights

SIZE = 299


class Inception(Classifier):
    """2048 features of the TensorFlow Inception-v3 of 2015 (Heusel et al. 2017, arXiv:1706.08500), by torch-fidelity.

    Images are resized to 299 as TensorFlow 1 does, without antialiasing: that is what published figures use. The
    logits, of 1,008 classes, are without the last layer's biases, as those of the Inception score are (Salimans et al.
    2016, arXiv:1606.03498).

    Args:
        weights: a local copy of torch-fidelity's file `weights-inception-2015-12-05-6726825d.pth`; None takes it from
            torch's hub cache, and downloads it where it is not there.

    Raises:
        FileNotFoundError: if the weights are not there and cannot be fetched.
        ValueError: if the file is damaged, or holds more than weights.
    """

    name = "inception"
    num_features = 2048
    sees = f"{SIZE} x {SIZE}, bilinear as TensorFlow 1 (not antialiased, aligned at a corner), grey as colour, [-1, 1)"
    published = PublishedWeights(
        file="weights-inception-2015-12-05-6726825d.pth",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        licence="Apache-2.0",
    )
    licence = published.licence

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        path, self.weights_sha256 = self.published.find(weights)
        self.published.tensors(path)  # torch-fidelity would run what a pickle names
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            whole = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged, or is not {self.published.file}; fetch it again") from error
        *layers, (_, self.last) = whole.named_children()
        self.network = nn.Sequential(OrderedDict(layers)).eval().requires_grad_(False)

    def resize(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, 3, 299, 299], in [0, 255]."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        return interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIZE, SIZE), align_corners=False)

    def features(self, images: Tensor) -> Tensor:
        return self.network((self.resize(to_colour(images)) - 128) / 128).flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        with full_precision(features.device.type):
            return features @ self.last.weight.T
