"""The mean squared error against L_simple, the published weights and the uniform law of training times."""

import math

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.loss import MSELoss
from diffusion_lit.parameterization import EpsParameterization, VParameterization, X0Parameterization
from diffusion_lit.schedule import CosineSchedule, DiscreteSchedule
from diffusion_lit.weighting import MinSNRWeighting, UnitWeighting
from tests.analytic import build, grid_times, members

SCHEDULES = members("schedule", DiscreteSchedule)
T = 1000


class Smooth(nn.Module):
    """Any function of the image and of the step's number counted from 0."""

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return torch.sin(2 * x + c_noise.view(-1, 1, 1, 1) / 300)


def images(num: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(num, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype) * 2 - 1


def l_simple(betas: list[float], x_0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ho et al. 2020, algorithm 1, in beta form: t ~ U{1..T}, |eps - F(x_t, t - 1)|^2."""
    step = torch.ceil((1 - torch.rand(len(x_0), 1, 1, 1, generator=generator, dtype=x_0.dtype)).double() * T)
    eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
    losses = []
    for image, noise, number in zip(x_0, eps, step.flatten().int().tolist(), strict=True):
        abar = math.prod(1 - beta for beta in betas[:number])
        x_t = math.sqrt(abar) * image + math.sqrt(1 - abar) * noise
        output = Smooth()(x_t[None], torch.tensor([number - 1], dtype=x_0.dtype), None)[0]
        losses.append((noise - output).square().mean())
    return torch.stack(losses), step.flatten() / T


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_eps_with_unit_weighting_is_l_simple(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """In float32 x_t / alpha and x_t / sigma lose up to three digits at the ends of the chain."""
    schedule, x_0 = build("schedule", name), images(64, dtype)
    loss = MSELoss(UniformDensity(), UnitWeighting())
    denoiser = Denoiser(Smooth(), schedule, EpsParameterization())
    actual = loss(denoiser, x_0, generator=torch.Generator().manual_seed(8))
    expected, t = l_simple(schedule.betas.tolist(), x_0, torch.Generator().manual_seed(8))
    torch.testing.assert_close(actual["t"].double(), t, rtol=0, atol=1e-7)
    torch.testing.assert_close(actual["loss"], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("parameterization", members("parameterization"))
@pytest.mark.parametrize("weighting", members("weighting"))
def test_loss_is_the_weighted_error_of_the_output(weighting: str, parameterization: str) -> None:
    """And equally the weight over c_out^2 on the error of x_0, with the same draws."""
    schedule, x_0 = build("schedule", "linear"), images(16, torch.float64)
    denoiser = Denoiser(Smooth(), schedule, build("parameterization", parameterization))
    weight = build("weighting", weighting)
    actual = MSELoss(UniformDensity(), weight)(denoiser, x_0, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    u = 1 - torch.rand(16, 1, 1, 1, generator=generator, dtype=torch.float64)
    t = torch.ceil(u * T) / T
    x_t = schedule.add_noise(x_0, torch.randn(x_0.shape, generator=generator, dtype=torch.float64), t)
    error = (x_0 - denoiser(x_t, t).x_0).square().mean((1, 2, 3))
    expected = (weight(denoiser, t) / denoiser.coefficients(t).c_out ** 2).flatten() * error
    torch.testing.assert_close(actual["loss"], expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_min_snr_weights_are_the_published_ones(name: str, gamma: float) -> None:
    """Hang et al. 2023: min(1, gamma / SNR) for eps, min(SNR, gamma) / (SNR + 1) for v, min(SNR, gamma) for x_0."""
    schedule = build("schedule", name)
    t = grid_times(schedule, list(range(1, T + 1)))
    snr = (schedule.abar / (1 - schedule.abar)).view(-1, 1, 1, 1)
    published = {
        EpsParameterization: (gamma / snr).clamp(max=1),
        VParameterization: snr.clamp(max=gamma) / (snr + 1),
        X0Parameterization: snr.clamp(max=gamma),
    }
    for parameterization, expected in published.items():
        denoiser = Denoiser(Smooth(), schedule, parameterization())
        torch.testing.assert_close(MinSNRWeighting(gamma)(denoiser, t), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("parameterization", members("parameterization"))
def test_unit_weights_are_one(parameterization: str) -> None:
    schedule = build("schedule", "cosine")
    t = grid_times(schedule, [1, 500, T])
    denoiser = Denoiser(Smooth(), schedule, build("parameterization", parameterization))
    assert UnitWeighting()(denoiser, t).flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("gamma", [0.0, -5.0])
def test_min_snr_refuses_a_gamma_that_is_not_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"needs gamma > 0, got {gamma}"):
        MinSNRWeighting(gamma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_timesteps", [7, T])
def test_uniform_times_snap_to_uniform_steps(num_timesteps: int, dtype: torch.dtype) -> None:
    """Pearson's chi-squared over 200 draws a step is within 5 standard deviations, sqrt(2 (T - 1)), of T - 1."""
    schedule, draws = CosineSchedule(num_timesteps), 200 * num_timesteps
    x_0 = torch.empty(draws, 1, 1, 1, dtype=dtype)
    t = UniformDensity()(x_0, torch.Generator().manual_seed(11))
    assert t.dtype == dtype
    assert ((t > 0) & (t <= 1)).all()
    snapped = schedule.snap(t)
    counts = torch.bincount(schedule.index(snapped).flatten(), minlength=num_timesteps + 1)
    assert len(counts) == num_timesteps + 1
    assert counts[0] == 0
    chi_squared = float(((counts[1:] - 200).double() ** 2 / 200).sum())
    assert abs(chi_squared - (num_timesteps - 1)) < 5 * math.sqrt(2 * (num_timesteps - 1))
    assert ((snapped - t) * num_timesteps < 1 + 1e-3).all()
    assert ((snapped - t) * num_timesteps > -1e-3).all()
