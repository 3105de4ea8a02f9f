"""Which model the FID callback measures: the averaged weights, guided as asked, given every class in turn."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import SGD

from diffusion_lit.callback import EMA, FID
from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.data import ArrayImages, ImageDataModule, Images
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.feature import Pixels
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.loss import MSELoss
from diffusion_lit.lr_schedule import ConstantLR
from diffusion_lit.module import DiffusionModule
from diffusion_lit.parameterization import VParameterization
from diffusion_lit.picture.image import to_uint8
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.schedule import CosineSchedule
from diffusion_lit.weighting import UnitWeighting
from tests.analytic import Fake
from tests.callback.test_fid_value import frechet_distance, pixel_features

SHAPE = (1, 2, 2)
GOLDEN = (5**0.5 - 1) / 2
"""Classes that are equally many come as multiples of it fall into thirds."""
PLAIN, GUIDED = 12, 13
"""How many images are measured without and with guidance, by which the two figures are told apart."""


class Data(ImageDataModule):
    """Images of a brightness for each of three classes."""

    resolution, channels, num_classes = 2, 1, 3

    def load(self) -> dict[str, Images]:
        labels = torch.arange(24) % 3
        grain = torch.randint(0, 40, (24, *SHAPE), generator=torch.Generator().manual_seed(0))
        images = ArrayImages((grain + 100 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
        return {"train": images, "val": images}


class Network(Fake):
    """A linear function of the image with an offset for each class; dropout shows a model that is still training."""

    image_shape, num_classes = SHAPE, 3

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.offset = nn.Parameter(0.3 * torch.randn(4, *SHAPE, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        assert condition.label is not None
        return self.dropout(self.scale * x + self.offset[condition.label])  # the last one for no class


def figure(denoiser: Denoiser, data: Data, guidance: float, labels: Tensor) -> float:
    """The distance as the definitions have it, without the callback or any code that it shares with sampling."""
    noise = ImageNoise(0, range(len(labels)), SHAPE)
    model = denoiser if guidance == 1 else GuidedDenoiser(denoiser, guidance)
    images = to_uint8(DDIMSampler(3)(model, noise, Condition(labels)))
    return frechet_distance(pixel_features(data.splits["val"].images), pixel_features(images))  # type: ignore[attr-defined]


def test_the_figure_is_of_the_averaged_model_guided_and_with_classes(tmp_path: Path) -> None:
    """Equal to one made by hand, which any other weights, scale or classes would miss."""
    denoiser = Denoiser(Network(), CosineSchedule(), VParameterization())
    loss = MSELoss(UniformDensity(), UnitWeighting())
    module = DiffusionModule(denoiser, loss, partial(SGD, lr=0.5), ConstantLR())
    ema, data = EMA(0.9), Data(batch_size=12)
    measured = {
        guidance: FID(Pixels(), DDIMSampler(3), num_samples, 100, batch_size=5, guidance=guidance)
        for guidance, num_samples in ((1.0, PLAIN), (3.0, GUIDED))
    }
    trainer = Trainer(
        max_steps=4,
        accelerator="cpu",
        callbacks=[ema, *measured.values()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)

    raw, averaged = denoiser.eval(), deepcopy(denoiser).eval()
    with torch.no_grad():
        for name, weight in averaged.named_parameters():
            assert not torch.allclose(weight, ema.average[f"denoiser.{name}"], rtol=0.1)
            weight.copy_(ema.average[f"denoiser.{name}"])
    for guidance, callback in measured.items():
        labels = torch.tensor([int(i * GOLDEN % 1 * 3) for i in range(callback.num_samples)])
        found = float(trainer.callback_metrics[f"fid/pixels_{callback.num_samples}"])
        assert abs(found / figure(averaged, data, guidance, labels) - 1) < 1e-5
        others = {
            "raw weights": figure(raw, data, guidance, labels),
            "another scale": figure(averaged, data, 4 - guidance, labels),
            "classes in another order": figure(averaged, data, guidance, (labels + 1) % 3),
            "one class": figure(averaged, data, guidance, torch.zeros_like(labels)),
            "no class": figure(averaged, data, 1.0, torch.full_like(labels, NO_CLASS)),
        }
        assert {name: abs(found / other - 1) > 1e-3 for name, other in others.items()} == dict.fromkeys(others, True)
