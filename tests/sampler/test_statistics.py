"""Every stochastic sampler on a mixture of Gaussians: images have its mean, its covariance and its share of each mode.

A check compares an average over images with its exact value and allows LIMIT = 6.5 standard errors: 4.9 of chance,
which one check in a million exceeds, and 1.6 of bias, under which the number of steps keeps each (measured on 50,000
images). With 8 checks a run and 23 runs, a right sampler fails somewhere for one SEED in about 5000.
"""

import pytest
import torch
from torch import Tensor

from diffusion_lit.random import randn_like
from diffusion_lit.sampler import PredictorCorrectorSampler, Sampler
from tests.analytic import MixtureDenoiser, build, members

LIMIT = 6.5
SEED = 0
MEANS = torch.tensor([[0.8, 0.5], [-0.6, -0.3], [-0.2, -0.9]], dtype=torch.float64)
STDS = torch.tensor([0.4, 0.3, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
PLANE = torch.eye(2, dtype=torch.float64)

STOCHASTIC: dict[str, tuple[str, dict[str, object], dict[str, int]]] = {
    "ddpm small": ("ddpm", {"variance": "small"}, {"linear": 300, "vp": 300}),
    "ddpm large": ("ddpm", {"variance": "large"}, {"linear": 100, "vp": 100}),
    "ddim eta=0.5": ("ddim", {"eta": 0.5}, {"linear": 200, "vp": 200, "edm": 200, "flow": 100}),
    "ddim eta=1": ("ddim", {"eta": 1.0}, {"edm": 300, "flow": 150}),
    "euler churn": ("euler", {"churn": 4.0}, {"vp": 200, "edm": 200, "flow": 120}),
    "heun churn": ("heun", {"churn": 10.0}, {"linear": 60, "vp": 60, "edm": 60, "flow": 40}),
    "euler_maruyama": ("euler_maruyama", {}, {"linear": 100, "vp": 100, "edm": 250}),
}
"""Settings of members, and the number of steps on each schedule.

`ddim` with eta = 1 is `ddpm` with small variance, and goes where that does not; `predictor_corrector` has its own test.
"""


def draw(sampler: Sampler, denoiser: MixtureDenoiser, num: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    batch = torch.zeros(num, *denoiser.means.shape[1:], dtype=torch.float64)
    return sampler(denoiser, lambda: randn_like(batch, generator))


def deviations(images: Tensor, means: Tensor, stds: Tensor, basis: Tensor) -> Tensor:
    """How many standard errors the images' averages are from the mixture's: mean, covariance and weights, [8].

    In the plane of `basis` [2, pixels], outside of which the components differ in spread only. A weight is the average
    of a component's probability given the image.

    Args:
        images: [B, C, H, W].
        means: the components' [3, pixels].
        stds: [3].
        basis: orthonormal.
    """
    x = images.flatten(1)
    distances = (x[:, None] - means).square().sum(2)
    shares = (WEIGHTS.log() - x.shape[1] * stds.log() - distances / (2 * stds**2)).softmax(1)
    mean = WEIGHTS @ MEANS
    offsets = MEANS - mean
    covariance = (WEIGHTS @ stds**2) * torch.eye(2, dtype=torch.float64) + (WEIGHTS * offsets.T) @ offsets
    y = x @ basis.T - mean
    products = torch.stack([y[:, 0] ** 2, y[:, 0] * y[:, 1], y[:, 1] ** 2], 1)
    averaged = torch.cat([y, products - covariance[[0, 0, 1], [0, 1, 1]], shares - WEIGHTS], 1)
    return averaged.mean(0) / (averaged.std(0) / len(x) ** 0.5)


def test_every_stochastic_member_is_checked() -> None:
    """Those that are stochastic as they come, and those that can be made so."""
    stochastic = {name for name in members("sampler") if build("sampler", name).stochastic}
    assert {name for name, _, _ in STOCHASTIC.values()} | {"predictor_corrector"} == stochastic | {
        "ddim",
        "euler",
        "heun",
    }


def test_the_check_passes_exact_images_and_sees_a_difference() -> None:
    """The mixture's own images are within 4.9 standard errors; those with 10 % more spread or other weights are not."""
    denoiser = MixtureDenoiser(build("schedule", "vp"), MEANS.view(3, 1, 1, 2), STDS, WEIGHTS)
    generator = torch.Generator().manual_seed(SEED)
    images = denoiser.sample(2000, generator)
    assert deviations(images, MEANS, STDS, PLANE).abs().max() < 4.9
    assert deviations(1.1 * images, MEANS, STDS, PLANE).abs().max() > LIMIT
    denoiser.weights = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    assert deviations(denoiser.sample(2000, generator), MEANS, STDS, PLANE).abs().max() > LIMIT


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(name, schedule, marks=[] if schedule == next(iter(steps)) else pytest.mark.slow)
        for name, (_, _, steps) in STOCHASTIC.items()
        for schedule in steps
    ],
)
def test_stochastic_samplers_draw_from_the_data(name: str, schedule: str) -> None:
    """2000 images of two pixels."""
    member, overrides, steps = STOCHASTIC[name]
    denoiser = MixtureDenoiser(build("schedule", schedule), MEANS.view(3, 1, 1, 2), STDS, WEIGHTS)
    sampler = build("sampler", member, num_steps=steps[schedule], clip=None, **overrides)
    z = deviations(draw(sampler, denoiser, 2000), MEANS, STDS, PLANE)
    assert z.abs().max() < LIMIT, z


@pytest.mark.parametrize("schedule", ["linear", "vp", "edm"])
def test_predictor_corrector_draws_from_the_data(schedule: str) -> None:
    """1000 images of 64 pixels, whose means lie in a plane and whose spread is the same.

    Outside the plane, where 62,000 numbers leave half a percent to chance, the variance may be 9 % too large: the
    steps leave 2 % (5 % on EDM's schedule), the size of the corrections 1 % (snr^2).
    """
    basis = torch.stack([torch.ones(64), torch.tensor([1.0, -1.0]).repeat(32)]).double() / 8
    means, stds = MEANS @ basis, torch.full_like(STDS, 0.4)
    denoiser = MixtureDenoiser(build("schedule", schedule), means.view(3, 1, 8, 8), stds, WEIGHTS)
    images = draw(PredictorCorrectorSampler(num_steps=100, snr=0.1), denoiser, 1000)
    z = deviations(images, means, stds, basis)
    assert z.abs().max() < LIMIT, z
    x = images.flatten(1)
    outside = (x - x @ basis.T @ basis).square().sum() / (1000 * 62)
    assert float(outside) == pytest.approx(0.4**2, rel=0.09)
