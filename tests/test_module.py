"""Where the module's random draws come from."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.condition import Condition
from diffusion_lit.data import ArrayImages, ImageDataModule, Images
from diffusion_lit.data.batch import AugmentedImages
from diffusion_lit.data.order import EvaluationOrder
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.loss import MSELoss
from diffusion_lit.module import DiffusionModule
from diffusion_lit.parameterization import VParameterization
from diffusion_lit.schedule import CosineSchedule
from diffusion_lit.weighting import UnitWeighting
from tests.analytic import Fake


class Network(Fake):
    """Passes the image through dropout, and keeps what came in and which pixels were dropped."""

    image_shape = (1, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.seen: list[Tensor] = []
        self.dropped: list[Tensor] = []

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        self.seen.append(x)
        self.dropped.append(self.dropout(torch.ones_like(x)) == 0)
        return torch.zeros_like(x)


class Data(ImageDataModule):
    """Ten images, all the same."""

    resolution, channels, num_classes = 4, 1, None

    def load(self) -> dict[str, Images]:
        return {"val": ArrayImages(torch.full((10, 1, 4, 4), 77, dtype=torch.uint8))}


class Placed(DiffusionModule):
    """A module that is at any step, without a trainer."""

    global_step = 0  # type: ignore[assignment]
    trainer: Any = None


@pytest.fixture
def module() -> Placed:
    denoiser = Denoiser(Network(), CosineSchedule(), VParameterization())
    return Placed(denoiser, MSELoss(UniformDensity(), UnitWeighting()), None, None, seed=3)  # type: ignore[arg-type]


@pytest.fixture
def batches() -> list[Any]:
    data = Data(batch_size=4)
    data.setup()
    return list(data.val_dataloader())


def distinct(tensors: list[Tensor]) -> int:
    return len({tuple(tensor.flatten().tolist()) for tensor in tensors})


def test_dropout_and_noise_are_new_at_each_step_and_of_the_step_alone(module: Placed, batches: list[Any]) -> None:
    """(seed, column, step, step of the epoch): two that differ share nothing, whatever else draws in between."""
    network = module.denoiser.network
    assert isinstance(network, Network)
    addresses = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 5, 2)]
    place = module.accumulation
    for attempt in range(2):
        torch.manual_seed(attempt)
        for place.column, module.global_step, place.step in addresses:
            module.training_step(batches[0], 0)
    module.seed, place.column, module.global_step, place.step = 4, 0, 0, 0
    module.training_step(batches[0], 0)
    for tensors in (network.dropped, network.seen):
        assert distinct(tensors) == len(addresses) + 1
        assert all(torch.equal(a, b) for a, b in zip(tensors[:5], tensors[5:10], strict=True))


def test_validation_does_not_depend_on_how_its_images_are_shared_out() -> None:
    """An image has noise of its own, whatever its batch and its rank: the mean is the same to rounding."""
    denoiser, loss = (
        Denoiser(Network(), CosineSchedule(), VParameterization()),
        MSELoss(UniformDensity(), UnitWeighting()),
    )
    images = torch.randint(0, 256, (10, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    means = []
    for batch_size, world_size in ((10, 1), (3, 1), (1, 1), (4, 2), (2, 3)):
        module = Placed(denoiser, loss, None, None)  # type: ignore[arg-type]
        module.eval()
        for rank in range(world_size):
            order = EvaluationOrder(10, batch_size, rank, world_size)
            for index, addresses in enumerate(order):
                module.validation_step(AugmentedImages(ArrayImages(images), 0, None).__getitems__(addresses), index)
        means.append({name: float(mean) for name, mean in module.held_out.compute().items()})
    assert all(mean == pytest.approx(means[0], rel=1e-6) for mean in means), means


def test_validation_batches_share_no_noise_and_have_the_same_at_each_validation(
    module: Placed, batches: list[Any]
) -> None:
    """The images are all the same, so that what the network sees differs by the noise and its time alone."""
    network = module.denoiser.network
    assert isinstance(network, Network)
    module.eval()
    for attempt in range(2):
        torch.manual_seed(attempt)
        module.global_step = attempt  # training has moved on
        for index, batch in enumerate(batches):
            module.validation_step(batch, index)
    first, second = network.seen[: len(batches)], network.seen[len(batches) :]
    assert len(batches) > 1 and distinct([image for batch in first for image in batch]) == 10
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float16_takes_no_fused_optimizer(module: Placed) -> None:
    """Which would leave the gradients' scale in what is clipped; every other precision may have one."""
    network = nn.Linear(1, 1)
    for precision, fused, refused in (
        ("16-mixed", True, True),
        ("16-mixed", False, False),
        ("bf16-mixed", True, False),
    ):
        module.optimizer = lambda parameters, fused=fused: torch.optim.AdamW(network.parameters(), fused=fused)
        module.trainer = SimpleNamespace(precision=precision)
        with pytest.raises(ValueError, match=r"use optimizer\.fused=false") if refused else nullcontext():
            module.configure_optimizers()
