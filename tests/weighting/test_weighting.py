"""The weights against their papers' formulas: functions of SNR on the error of x_0, or on that of the output."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density
from diffusion_lit.loss import MSELoss
from diffusion_lit.schedule import CosineSchedule, DiscreteSchedule, FlowSchedule, Schedule
from diffusion_lit.weighting import (
    MinSNRWeighting,
    P2Weighting,
    SigmoidWeighting,
    SNRWeighting,
    TruncatedSNRWeighting,
    UnitWeighting,
    Weighting,
)
from tests.analytic import Fake, build, grid_times, members, prediction, weight_of

SCHEDULES = members("schedule")
DISCRETE = members("schedule", DiscreteSchedule)
PARAMETERIZATIONS = members("parameterization")
WEIGHTINGS = members("weighting")
T = 1000
SIGMA_DATA = 0.5

C_OUT_SQUARED: dict[str, Callable[[Tensor], Tensor]] = {
    "eps": lambda snr: 1 / snr,
    "x0": lambda snr: torch.ones_like(snr),
    "v": lambda snr: 1 / (1 + snr),
    "velocity": lambda snr: 1 / (1 + snr.sqrt()) ** 2,
    "edm": lambda snr: SIGMA_DATA**2 / (1 + SIGMA_DATA**2 * snr),
}
"""|x_0 - x_0_hat|^2 / |target - F|^2, written in SNR."""

X_0_WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "unit": lambda snr, c_out_squared: 1 / c_out_squared,
    "snr": lambda snr, c_out_squared: snr,
    "truncated_snr": lambda snr, c_out_squared: torch.maximum(snr, torch.ones_like(snr)),
    "min_snr": lambda snr, c_out_squared: torch.minimum(snr, torch.full_like(snr, 5)),
    "p2": lambda snr, c_out_squared: snr / (1 + snr),
    "sigmoid": lambda snr, c_out_squared: snr / (1 + snr * math.exp(-2)),
}
"""On the error of x_0, with the settings of their yaml; SNR sigmoid(2 - log SNR) = SNR / (1 + SNR exp(-2))."""


class Small(Fake):
    """A network with a few parameters, none of them at a special value."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        wave = torch.sin(2 * x + c_noise.view(-1, 1, 1, 1) / 300)
        return self.scales[0] * x + self.scales[1] * wave + self.scales[2]


class At(Density):
    """The times it is given."""

    def __init__(self, t: Tensor) -> None:
        super().__init__()
        self.t = t

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        return self.t


def some_times(schedule: Schedule) -> Tensor:
    return schedule.snap(torch.tensor([0.002, 0.03, 0.2, 0.45, 0.7, 0.93], dtype=torch.float64).view(-1, 1, 1, 1))


def snr_of(schedule: Schedule, t: Tensor) -> Tensor:
    return (schedule.alpha(t) / schedule.sigma(t)) ** 2


def refused(parameterization: str, schedule: Schedule) -> bool:
    """At the end of a schedule that leaves no signal, the noise does not determine x_0."""
    return parameterization == "eps" and float(schedule.alpha(torch.ones(1))) == 0


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_training_is_that_on_the_weighted_error_of_x_0(weighting: str, parameterization: str) -> None:
    """The same loss and the same gradient of the network's parameters.

    On every third schedule, such that each of them meets every weighting, and every parameterization.
    """
    place = WEIGHTINGS.index(weighting) + PARAMETERIZATIONS.index(parameterization)
    x_0 = torch.randn(6, 1, 3, 3, generator=Generator().manual_seed(5), dtype=torch.float64)
    eps = torch.randn(6, 1, 3, 3, generator=Generator().manual_seed(6), dtype=torch.float64)
    for name in SCHEDULES[place % 3 :: 3]:
        schedule, network = build("schedule", name), Small()
        if refused(parameterization, schedule):
            continue
        t = some_times(schedule)
        denoiser = Denoiser(network, schedule, build("parameterization", parameterization))
        loss = MSELoss(At(t), build("weighting", weighting))
        actual = loss(denoiser, x_0, generator=Generator().manual_seed(6)).loss
        x_0_hat = denoiser(schedule.alpha(t) * x_0 + schedule.sigma(t) * eps, t).x_0
        snr = snr_of(schedule, t)
        weight = X_0_WEIGHTS[weighting](snr, C_OUT_SQUARED[parameterization](snr))
        expected = (weight * (x_0 - x_0_hat) ** 2).mean((1, 2, 3))
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=0)
        for one, other in zip(actual, expected, strict=True):  # time by time: none may hide behind a heavier one
            gradient, wanted = (torch.autograd.grad(x, network.scales, retain_graph=True)[0] for x in (one, other))
            torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize("parameterization", [name for name in PARAMETERIZATIONS if name != "eps"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_are_their_limits_where_no_signal_is_left(weighting: str, parameterization: str) -> None:
    one, nothing = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    c_out_squared = C_OUT_SQUARED[parameterization](nothing)
    expected = X_0_WEIGHTS[weighting](nothing, c_out_squared) * c_out_squared
    for schedule in (FlowSchedule(), CosineSchedule(zero_terminal_snr=True)):
        denoiser = Denoiser(Small(), schedule, build("parameterization", parameterization))
        torch.testing.assert_close(weight_of(build("weighting", weighting), denoiser, one), expected)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_have_the_precision_of_the_times(weighting: str, parameterization: str) -> None:
    denoiser = Denoiser(Small(), build("schedule", "linear"), build("parameterization", parameterization))
    t, weight = grid_times(denoiser.schedule, [1, 10, 400, T]), build("weighting", weighting)
    low = weight_of(weight, denoiser, t.float())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), weight_of(weight, denoiser, t), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("name", DISCRETE)
def test_min_snr_weights_are_the_published_ones(name: str, gamma: float) -> None:
    """Hang et al. 2023: min(1, gamma / SNR) for eps, min(SNR, gamma) / (SNR + 1) for v, min(SNR, gamma) for x_0."""
    schedule = build("schedule", name)
    t = grid_times(schedule, list(range(1, T + 1)))
    snr = (schedule.abar / (1 - schedule.abar)).view(-1, 1, 1, 1)
    published = {
        "eps": (gamma / snr).clamp(max=1),
        "v": snr.clamp(max=gamma) / (snr + 1),
        "x0": snr.clamp(max=gamma),
    }
    check(MinSNRWeighting(gamma), schedule, t, published)


@pytest.mark.parametrize(("k", "gamma"), [(1.0, 1.0), (1.0, 0.5), (2.0, 3.0), (1.0, 0.0)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_p2_weights_are_the_published_ones(name: str, k: float, gamma: float) -> None:
    """1 / (k + SNR)^gamma on the error of eps (Choi et al. 2022, eq. 8)."""
    schedule = build("schedule", name)
    t = some_times(schedule)
    snr = snr_of(schedule, t)
    published = {"eps": 1 / (k + snr) ** gamma, "x0": snr / (k + snr) ** gamma}
    check(P2Weighting(k, gamma), schedule, t, published)


@pytest.mark.parametrize("name", SCHEDULES)
def test_truncated_snr_weights_are_the_published_ones(name: str) -> None:
    """max(SNR, 1) for x_0 (Salimans & Ho 2022, section 4), the greater of the errors of x_0 and eps."""
    schedule = build("schedule", name)
    t = some_times(schedule)
    snr = snr_of(schedule, t)
    published = {"eps": (1 / snr).clamp(min=1), "v": snr.clamp(min=1) / (1 + snr), "x0": snr.clamp(min=1)}
    check(TruncatedSNRWeighting(), schedule, t, published)


@pytest.mark.parametrize("name", SCHEDULES)
def test_snr_weights_are_the_plain_error_of_eps(name: str) -> None:
    schedule = build("schedule", name)
    t = some_times(schedule)
    snr = snr_of(schedule, t)
    check(SNRWeighting(), schedule, t, {"eps": torch.ones_like(t), "v": snr / (1 + snr), "x0": snr})


@pytest.mark.parametrize("bias", [2.0, -1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_sigmoid_weights_are_the_published_ones(name: str, bias: float) -> None:
    """sigmoid(bias - log SNR) on the error of eps (Kingma & Gao 2023, section 4); half where log SNR is the bias."""
    schedule = build("schedule", name)
    t = some_times(schedule)
    snr = snr_of(schedule, t)
    falling = 1 / (1 + (snr.log() - bias).exp())
    check(SigmoidWeighting(bias), schedule, t, {"eps": falling, "x0": snr * falling, "v": falling * snr / (1 + snr)})
    half = schedule.time(torch.full_like(t, bias))
    check(SigmoidWeighting(bias), schedule, half, {"eps": torch.full_like(t, 0.5)})


def check(weighting: Weighting, schedule: Schedule, t: Tensor, published: dict[str, Tensor]) -> None:
    """The weights at `t` are `published[parameterization]`."""
    for parameterization, expected in published.items():
        if refused(parameterization, schedule):
            continue
        denoiser = Denoiser(Small(), schedule, build("parameterization", parameterization))
        torch.testing.assert_close(weight_of(weighting, denoiser, t), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_unit_weighting_of_edm_is_the_published_weight(name: str) -> None:
    """(sigma^2 + d^2) / (sigma d)^2 on the error of x_0 (Karras et al. 2022, table 1), sigma being sigma / alpha."""
    schedule = build("schedule", name)
    t = some_times(schedule)
    denoiser = Denoiser(Small(), schedule, build("parameterization", "edm", sigma_data=SIGMA_DATA))
    sigma = schedule.sigma(t) / schedule.alpha(t)
    actual = weight_of(UnitWeighting(), denoiser, t) / prediction(denoiser, t, t, t).c_out ** 2
    torch.testing.assert_close(actual, (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("gamma", [0.0, -5.0])
def test_min_snr_refuses_a_gamma_that_is_not_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"needs gamma > 0, got {gamma}"):
        MinSNRWeighting(gamma)


@pytest.mark.parametrize(("k", "gamma"), [(0.0, 1.0), (-1.0, 1.0), (1.0, -0.5)])
def test_p2_refuses_what_is_out_of_range(k: float, gamma: float) -> None:
    with pytest.raises(ValueError, match=f"k > 0 and gamma >= 0, got k={k}, gamma={gamma}"):
        P2Weighting(k, gamma)
