"""A term of the variational bound: the divergence of two Gaussians, and the probability of an 8-bit pixel."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from diffusion_lit import bound
from diffusion_lit.bound import bound_term, discretized_gaussian_nll, gaussian_kl
from diffusion_lit.denoiser import Prediction
from diffusion_lit.schedule import DiscreteSchedule, Schedule
from tests.analytic import GaussianDenoiser, build, grid_times, members
from tests.analytic import prediction as prediction_of

SCHEDULES = members("schedule")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
PAIRS = [(0.3, 0.2), (0.5, 0.499), (0.9, 0.4), (0.02, 0.011), (0.999, 0.001)]
"""Times t and s of steps, long and short."""


def bin_edges(level: int, mean: float, std: float) -> tuple[float, float]:
    """Where the bin of a level begins and ends, in standard deviations from the mean."""
    x = level / 127.5 - 1
    low = -math.inf if level == 0 else (x - 1 / 255 - mean) / std
    return low, math.inf if level == 255 else (x + 1 / 255 - mean) / std


def exact_nll(level: int, mean: float, std: float) -> tuple[float, float, float]:
    """-log P of a level's bin, and its derivatives by the mean and the log of the standard deviation.

    From the density by Gauss and Legendre's rule, its largest value in the bin taken out: with z the nearer edge and w
    the distance from it, P = phi(z) I, I = integral_0^width exp(-z w - w^2 / 2) dw, for a bin on one side of the mean.
    """
    low, high = bin_edges(level, mean, std)
    if low < 0 < high:
        share = norm.cdf(high) - norm.cdf(low)
        slopes = [0.0 if math.isinf(z) else z * norm.pdf(z) for z in (low, high)]
        return -math.log(share), (norm.pdf(high) - norm.pdf(low)) / share / std, (slopes[1] - slopes[0]) / share
    side = 1 if low >= 0 else -1
    z, far = (low, high) if side > 0 else (-high, -low)
    width = min(far - z, 50 / z if z > 5 else 10.0)
    w = width * (NODES + 1) / 2
    integral = float(width / 2 * (WEIGHTS * np.exp(-z * w - w**2 / 2)).sum())
    at_far = 0.0 if math.isinf(far) else math.exp(-(z + far) * (far - z) / 2)  # phi(far) / phi(z)
    nll = z**2 / 2 + math.log(2 * math.pi) / 2 - math.log(integral)
    end = 0.0 if math.isinf(far) else far * at_far
    return nll, -side * (1 - at_far) / integral / std, -(z - end) / integral


def nll_and_slopes(level: int, mean: float, std: float, dtype: torch.dtype) -> tuple[float, float, float]:
    """The same by the function and autograd."""
    x = torch.tensor(level / 127.5 - 1, dtype=dtype)
    center = torch.tensor(mean, dtype=dtype, requires_grad=True)
    log_std = torch.tensor(math.log(std), dtype=dtype, requires_grad=True)
    nll = discretized_gaussian_nll(x, center, log_std)
    by_mean, by_log_std = torch.autograd.grad(nll, (center, log_std))
    return nll.item(), by_mean.item(), by_log_std.item()


def test_gaussian_kl_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean_q, mean_p, log_variance_q, log_variance_p = 3 * torch.randn(4, 500, generator=generator, dtype=torch.float64)
    q = torch.distributions.Normal(mean_q, (log_variance_q / 2).exp())
    p = torch.distributions.Normal(mean_p, (log_variance_p / 2).exp())
    actual = gaussian_kl(mean_q, log_variance_q, mean_p, log_variance_p)
    torch.testing.assert_close(actual, torch.distributions.kl_divergence(q, p), rtol=1e-10, atol=1e-12)
    assert (gaussian_kl(mean_q, log_variance_q, mean_q, log_variance_q) == 0).all()


@pytest.mark.parametrize("std", [3.0, 0.3, 0.05, 0.01, 0.002])
@pytest.mark.parametrize("mean", [-1.5, -1.0, -0.31, 0.0, 0.9, 1.2])
def test_a_bins_probability_and_its_slopes_are_the_gaussians(mean: float, std: float) -> None:
    """In float64 to 1e-9 relative, in the middle and over 1000 standard deviations out."""
    for level in (0, 1, 60, 88, 127, 128, 200, 254, 255):
        actual, expected = nll_and_slopes(level, mean, std, torch.float64), exact_nll(level, mean, std)
        assert actual == pytest.approx(expected, rel=1e-9, abs=1e-12), level


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std", [1.0, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("mean", [-2.0, -0.999, 0.0, 0.1234, 1.0])
def test_the_256_levels_probabilities_sum_to_one(mean: float, std: float, dtype: torch.dtype) -> None:
    """Wherever the mean is. A bin of width 0.008 std is a difference of two logarithms: 1e-7 / 0.008 in float32."""
    log_std = torch.tensor(math.log(std), dtype=dtype)
    total = discretized_gaussian_nll(LEVELS.to(dtype), torch.tensor(mean, dtype=dtype), log_std).neg().exp().sum()
    assert float(total) == pytest.approx(1, abs=2e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_edge_bins_reach_to_infinity(dtype: torch.dtype) -> None:
    """Also for -1 and 1 as an image in [0, 255] gives them; their neighbours' bins end."""
    log_std = torch.tensor(math.log(0.05), dtype=dtype)
    for mean in (-7.0, 7.0):
        nll = discretized_gaussian_nll(LEVELS.to(dtype), torch.tensor(mean, dtype=dtype), log_std)
        edge, neighbour = (nll[0], nll[1]) if mean < 0 else (nll[255], nll[254])
        assert float(edge) == 0
        assert float(neighbour) > 1000
    expected = -norm.logcdf((-1 + 1 / 255 - 0.2) / 0.05)
    assert float(discretized_gaussian_nll(LEVELS[0], torch.tensor(0.2).double(), log_std.double())) == pytest.approx(
        expected, rel=1e-7
    )


@pytest.mark.parametrize("distance", [10, 100, 300, 1000])
@pytest.mark.parametrize("level", [0, 40, 255])
def test_far_tails_in_float32_have_the_right_value_and_slopes(level: int, distance: int) -> None:
    """Within 2 %: training on the bound rests on these slopes where the mean is still far off."""
    std = 0.002
    mean = level / 127.5 - 1 + (1 if level < 128 else -1) * distance * std
    actual, expected = nll_and_slopes(level, mean, std, torch.float32), exact_nll(level, mean, std)
    assert actual == pytest.approx(expected, rel=0.02)


def test_float32_numbers_are_worked_with_in_float64_and_answered_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mean, log_std = 2 * torch.rand(3, 1000, generator=generator) - 1
    nll = discretized_gaussian_nll(x, mean, 3 * log_std - 3)
    assert nll.dtype == torch.float32
    assert torch.equal(nll, discretized_gaussian_nll(x.double(), mean.double(), (3 * log_std - 3).double()).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_no_tail_is_so_far_that_value_or_slope_stop_being_finite(level: int, std: float, dtype: torch.dtype) -> None:
    """Up to 300,000 standard deviations; the value is half the squared distance, to first order."""
    for mean in (-3.0, 3.0):
        actual = nll_and_slopes(level, mean, std, dtype)
        assert all(map(math.isfinite, actual)), (mean, actual)
        distance = min(abs(z) for z in bin_edges(level, mean, std))
        if not (level == 0 and mean < 0) and not (level == 255 and mean > 0):
            assert actual[0] == pytest.approx(distance**2 / 2, rel=0.01)


def conditional(
    schedule: Schedule, x_0: Tensor, x_t: Tensor, s: float, t: float, variance: str
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x_s given x_t and x_0, by conditioning the joint Gaussian of (x_s, x_t).

    x_t = a x_s + noise with a = alpha_t / alpha_s, so cov(x_s, x_t) = a sigma_s^2. With large variance, sigma_t^2
    takes the place of sigma_s^2 in the spread.
    """
    times = torch.tensor([s, t], dtype=torch.float64)
    (alpha_s, alpha_t), (sigma_s, sigma_t) = schedule.alpha(times), schedule.sigma(times)
    gain = alpha_t / alpha_s * sigma_s**2 / sigma_t**2
    spread = sigma_s**2 - gain * alpha_t / alpha_s * sigma_s**2
    if variance == "large":
        spread = spread * sigma_t**2 / sigma_s**2
    return alpha_s * x_0 + gain * (x_t - alpha_t * x_0), spread.sqrt()


def prediction(schedule: Schedule, t: Tensor, seed: int = 0) -> tuple[Tensor, Prediction]:
    """8-bit images [B, 2, 3, 3] and what an imperfect model makes of them at the times `t`."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.randint(0, 256, (len(t), 2, 3, 3), generator=generator).double() / 127.5 - 1
    eps, error, share = torch.randn(3, *x_0.shape, generator=generator, dtype=torch.float64)
    p = prediction_of(GaussianDenoiser(schedule, 0.0, 1.0), x_0 + 0.2 * error, schedule.add_noise(x_0, eps, t), t)
    return x_0, replace(p, variance=share.sigmoid())


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_term_is_the_divergence_of_the_two_conditionals(name: str, variance: str) -> None:
    """In bits/dim, each image at times of its own. The covariances cancel to about 1e-8 for the shortest step."""
    schedule = build("schedule", name)
    t, s = torch.tensor(PAIRS, dtype=torch.float64).T.reshape(2, -1, 1, 1, 1)
    x_0, p = prediction(schedule, t)
    actual = bound_term(p, x_0, s, variance)
    for i, (one_t, one_s) in enumerate(PAIRS):
        q_s = conditional(schedule, x_0[i], p.x_t[i], one_s, one_t, "small")
        p_s = conditional(schedule, p.x_0[i], p.x_t[i], one_s, one_t, variance)
        kl = torch.distributions.kl_divergence(*(torch.distributions.Normal(*moments) for moments in (q_s, p_s)))
        torch.testing.assert_close(actual[i], kl.mean() / math.log(2), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", members("schedule", DiscreteSchedule))
def test_a_step_of_the_chain_costs_what_ddpm_says(name: str) -> None:
    """From the betas alone (Ho et al. 2020, eq. 7, 8): small is beta tilde, large is beta, learned lies between."""
    schedule = build("schedule", name)
    steps = [2, 3, 50, 500, 999]
    t, s = grid_times(schedule, steps), grid_times(schedule, [i - 1 for i in steps])
    x_0, p = prediction(schedule, t, seed=1)
    abar = (1 - schedule.betas).cumprod(0)
    assert p.variance is not None
    for i, step in enumerate(steps):
        beta, now, before = float(schedule.betas[step - 1]), float(abar[step - 1]), float(abar[step - 2])
        tilde = (1 - before) / (1 - now) * beta
        on_x_0 = math.sqrt(before) * beta / (1 - now)
        miss = (on_x_0 * (p.x_0[i] - x_0[i])).square()
        mixed = p.variance[i] * math.log(beta) + (1 - p.variance[i]) * math.log(tilde)
        log_variances = {
            "small": torch.tensor(math.log(tilde)),
            "large": torch.tensor(math.log(beta)),
            "learned": mixed,
        }
        for variance, log_variance in log_variances.items():
            ratio = tilde / log_variance.exp()
            nats = (ratio - 1 - ratio.log() + miss / log_variance.exp()) / 2
            actual = bound_term(p, x_0, s, variance)[i]
            assert float(actual) == pytest.approx(float(nats.mean()) / math.log(2), rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_perfect_estimate_costs_nothing_but_at_the_last_step(name: str) -> None:
    """There it costs the decoder's -log p, in bits/dim; both kinds of step in one batch."""
    schedule = build("schedule", name)
    t, s = torch.tensor([[0.5, 0.25], [0.01, 0.0]], dtype=torch.float64).T.reshape(2, -1, 1, 1, 1)
    x_0, p = prediction(schedule, t)
    perfect = replace(p, x_0=x_0)
    between, last = bound_term(perfect, x_0, s, "large")
    c = 1 - float(schedule.snr(t[0]) / schedule.snr(s[0]))
    ratio = float(schedule.sigma(s[0]) / schedule.sigma(t[0])) ** 2  # small over large variance: means agree
    assert c > 0
    assert float(between) == pytest.approx((ratio - 1 - math.log(ratio)) / 2 / math.log(2), rel=1e-6)
    std = math.exp(float(schedule.log_variance(s[1], t[1], 0)) / 2)  # the small variance, as the others' is large
    expected = np.mean([exact_nll(round((x + 1) * 127.5), x, std)[0] for x in x_0[1].flatten().tolist()])
    assert float(last) == pytest.approx(float(expected) / math.log(2), rel=1e-6)
    assert float(bound_term(perfect, x_0, s, "small")[0]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_terms_slope_is_that_of_the_divergence(name: str, dtype: torch.dtype) -> None:
    """Nothing of the decoder is in it, however far it is off."""
    schedule = build("schedule", name)
    t, s = torch.tensor(PAIRS, dtype=torch.float64).T.reshape(2, -1, 1, 1, 1).to(dtype)
    x_0, p = prediction(schedule, t, seed=2)
    x_0 = x_0.to(dtype)
    estimate = (x_0 + 2 * torch.sin(37 * x_0)).requires_grad_()
    given = replace(p, x_0=estimate, x_t=p.x_t.to(dtype))
    (slope,) = torch.autograd.grad(bound_term(given, x_0, s, "small").sum(), estimate)
    c, alpha, sigma = schedule.denoised_fraction(s, t), schedule.alpha(s), schedule.sigma(s)
    expected = alpha**2 * c / sigma**2 * (estimate - x_0).detach() / x_0[0].numel() / math.log(2)
    torch.testing.assert_close(slope, expected, rtol=1e-3 if dtype == torch.float32 else 1e-8, atol=1e-6)


@pytest.mark.parametrize("variance", ["small", "learned"])
@pytest.mark.parametrize("last", [[], [1], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("decodes_all", [False, True])
def test_only_the_last_steps_images_are_decoded(
    last: list[int], variance: str, decodes_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each term, and its slopes by the estimate and the variance, are those of the image by itself, on a GPU too."""
    decoded: list[int] = []

    def witness(x: Tensor, *args: Tensor) -> Tensor:
        decoded.append(len(x))
        return discretized_gaussian_nll(x, *args)

    monkeypatch.setattr(bound, "discretized_gaussian_nll", witness)
    if decodes_all:
        monkeypatch.setattr(bound, "to_decode", lambda last: torch.arange(len(last)))
    schedule = build("schedule", "cosine")
    t = torch.tensor([0.001, 0.002, 0.5], dtype=torch.float64).view(3, 1, 1, 1)
    s = torch.where(torch.tensor([i in last for i in range(3)]).view(3, 1, 1, 1), 0, t / 2)
    x_0, p = prediction(schedule, t)
    assert p.variance is not None
    given = replace(p, x_0=p.x_0.requires_grad_(), variance=p.variance.requires_grad_())
    inputs = (given.x_0, given.variance) if variance == "learned" else (given.x_0,)
    together = bound_term(given, x_0, s, variance)
    slopes = torch.autograd.grad(together.sum(), inputs)
    assert decoded == [3 if decodes_all else len(last)]
    for i in range(3):
        one = slice(i, i + 1)
        term = bound_term(given.chunk(3)[i], x_0[one], s[one], variance)
        assert torch.equal(term, together[one])
        for slope, expected in zip(slopes, torch.autograd.grad(term.sum(), inputs), strict=True):
            assert torch.equal(slope[one], expected[one]) and bool((expected[one] != 0).all())
