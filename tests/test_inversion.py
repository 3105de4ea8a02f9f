"""From images to noise and back, and between two noises."""

import math

import pytest
import torch

from diffusion_lit.inversion import invert
from diffusion_lit.random import ImageNoise, interpolated_noise, slerp
from diffusion_lit.sampler import DDIMSampler
from tests.analytic import GaussianDenoiser, MixtureDenoiser, build, members
from tests.repeats import slow_but

MEANS = torch.tensor([[0.6, -0.3], [-0.5, 0.4], [0.1, 0.9]]).view(3, 1, 1, 2)


def mixture(name: str) -> MixtureDenoiser:
    weights = torch.tensor([0.5, 0.3, 0.2])
    return MixtureDenoiser(build("schedule", name), MEANS, torch.tensor([0.3, 0.4, 0.35]), weights)


SOME = ("linear", "cosine_continuous", "edm")


@pytest.mark.parametrize("name", slow_but(SOME, members("schedule")))
def test_an_image_is_drawn_again_from_the_noise_it_is_inverted_to(name: str) -> None:
    """To what float64 and 60 iterations leave; fewer leave more. sqrt, whose first step is its longest, takes 20."""
    model, num_steps = mixture(name), 20 if name == "sqrt" else 10
    x_0 = model.sample(20, torch.Generator().manual_seed(0))
    errors = []
    for iterations in (1, 5, 60):
        noise = invert(model, x_0, num_steps=num_steps, num_iterations=iterations)
        errors.append(float((DDIMSampler(num_steps)(model, lambda noise=noise: noise) - x_0).abs().max()))
    assert errors[2] < 1e-5, errors
    assert errors[2] < errors[1] < errors[0], errors


def test_plain_inversion_converges_at_first_order() -> None:
    model = mixture("cosine")
    x_0 = model.sample(20, torch.Generator().manual_seed(0))
    numbers, errors = (25, 50, 100, 200), []
    for number in numbers:
        noise = invert(model, x_0, num_steps=number, num_iterations=1)
        errors.append(float((DDIMSampler(number)(model, lambda noise=noise: noise) - x_0).square().mean().sqrt()))
    slope = math.log(errors[-1] / errors[0]) / math.log(numbers[-1] / numbers[0])
    assert slope == pytest.approx(-1, abs=0.25), errors


@pytest.mark.parametrize("name", ["linear", "vp", "edm", "flow"])
def test_gaussian_images_become_gaussian_noise(name: str) -> None:
    """4,000 pixels; mean and variance within 5 standard errors, the variance also within 3 % for the 100 steps."""
    model = GaussianDenoiser(build("schedule", name), 0.3, 0.5)
    x_0 = 0.3 + 0.5 * torch.randn(1000, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = invert(model, x_0, num_steps=100)
    assert abs(float(noise.mean())) < 5 / math.sqrt(4000) + 0.01
    assert abs(float(noise.var()) - 1) < 5 * math.sqrt(2 / 4000) + 0.03
    assert float(torch.corrcoef(torch.stack([noise.flatten(), x_0.flatten()]))[0, 1]) > 0.999  # an affine map


def test_a_number_of_iterations_under_one_is_refused() -> None:
    with pytest.raises(ValueError, match="num_iterations must be at least 1, got 0"):
        invert(mixture("linear"), MEANS.double(), num_iterations=0)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_slerp_keeps_noise_gaussian_and_hits_its_ends(weight: float) -> None:
    """100,000 numbers: variance within 5 standard errors of 1; the plain mean's would be 1/2."""
    a, b = torch.randn(2, 10, 1, 100, 100, generator=torch.Generator().manual_seed(2))
    between = slerp(a, b, weight)
    assert abs(float(between.var()) - 1) < 5 * math.sqrt(2 / 100_000)
    if weight in (0, 1):
        torch.testing.assert_close(between, b if weight else a)
    torch.testing.assert_close(slerp(a, a, weight), a)


def test_slerp_turns_at_an_even_rate() -> None:
    """Of two noises of equal length, the one between lies at its share of the angle."""
    draws = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    a, b = draws / draws.flatten(1).norm(dim=1).view(2, 1, 1, 1, 1)
    angle = math.acos(float((a * b).sum()))
    for weight in (0.2, 0.5, 0.9):
        between = slerp(a, b, weight)
        assert float(between.norm()) == pytest.approx(1, abs=1e-5)
        assert math.acos(float((a * between).sum())) == pytest.approx(weight * angle, abs=1e-3)


def test_interpolated_noise_leads_from_each_image_to_the_next() -> None:
    ends = ImageNoise(4, range(3), (1, 3, 3))
    way = interpolated_noise(4, range(8), 4, (1, 3, 3))
    for _ in range(2):  # every draw, not only the start
        between, noise = way(), ends()
        torch.testing.assert_close(between[[0, 3, 4, 7]], noise[[0, 1, 1, 2]])
        thirds = torch.tensor([1 / 3, 2 / 3]).view(-1, 1, 1, 1)
        torch.testing.assert_close(between[1:3], slerp(noise[[0, 0]], noise[[1, 1]], thirds))
    apart = interpolated_noise(4, [5, 2], 4, (1, 3, 3))()
    assert torch.equal(apart, interpolated_noise(4, range(8), 4, (1, 3, 3))()[[5, 2]])
