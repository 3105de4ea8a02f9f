"""Bits/dim of models whose density is known: by the variational bound, and by the probability-flow ODE."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import norm
from torch import Tensor, nn

from diffusion_lit.bound import bound_term, discretized_gaussian_nll
from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import VARIANCES, Denoiser, Prediction
from diffusion_lit.likelihood import (
    Bound,
    Likelihood,
    exact_trace,
    ode_likelihood,
    ode_log_density,
    probed_trace,
    variational_bound,
)
from diffusion_lit.parameterization import VParameterization
from diffusion_lit.schedule import CosineSchedule, LinearSchedule, Schedule, VPSchedule, spaced_times
from tests.analytic import Fake, GaussianDenoiser, MixtureDenoiser, build, members
from tests.repeats import slow_but

SCHEDULES = members("schedule")
MEAN, STD = 0.1, 0.25
"""Of the Gaussian data: the ends of [-1, 1] are 3.6 standard deviations off, a bin is 1 / 32 of one."""
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def ends(schedule: Schedule, start: float | None = None) -> tuple[float, float, float, float]:
    """alpha and sigma at `start`, or t_min, where the flow starts, and at 1, where it ends."""
    t = torch.tensor([schedule.t_min if start is None else start, 1], dtype=torch.float64)
    (alpha_0, alpha_1), (sigma_0, sigma_1) = schedule.alpha(t).tolist(), schedule.sigma(t).tolist()
    return alpha_0, sigma_0, alpha_1, sigma_1


def sharp(name: str) -> bool:
    """Whether a schedule starts with so little noise that a density of stds over 0.3 hardly changes by it."""
    alpha, sigma, _, _ = ends(build("schedule", name))
    return sigma / alpha < 0.011


SHARP = [name for name in SCHEDULES if sharp(name)]


def half_a_bin(schedule: Schedule) -> float:
    """The time at which the noise is half a bin, or t_min if that is later."""
    log_snr = torch.tensor(2 * math.log(255), dtype=torch.float64)
    return max(float(schedule.time(log_snr)), schedule.t_min)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draws(
    shape: torch.Size | tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64
) -> Callable[[], Tensor]:
    """A source of standard Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def level_probabilities() -> np.ndarray:
    """Of N(MEAN, STD^2) rounded to the 256 levels, all beyond them in the first and the last."""
    edges = (np.arange(1, 256) - 0.5) / 127.5 - 1
    return np.diff(np.concatenate([[0.0], norm.cdf((edges - MEAN) / STD), [1.0]]))


def eight_bit(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of the Gaussian data rounded to 8 bits [num, 1, 4, 4], and their exact bits/dim [num]."""
    x = MEAN + STD * draw(num, 1, 4, 4, seed=seed)
    level = ((x + 1) * 127.5).round().clamp(0, 255)
    bits = -torch.from_numpy(np.log2(level_probabilities()))[level.long()]
    return level / 127.5 - 1, bits.mean((1, 2, 3))


def gaussian_log_density(
    schedule: Schedule, x_0: Tensor, mean: float = MEAN, std: float = STD, start: float | None = None
) -> Tensor:
    """What the flow makes of the Gaussian in nats, [B], exactly.

    An affine map from N(alpha mean, alpha^2 std^2 + sigma^2) at its start, where x_0 is scaled to, to the same at 1,
    whose value there is read off N(0, sigma^2) instead.
    """
    alpha_0, sigma_0, alpha_1, sigma_1 = ends(schedule, start)
    spread_0, spread_1 = (math.hypot(a * std, s) for a, s in ((alpha_0, sigma_0), (alpha_1, sigma_1)))
    x_1 = alpha_1 * mean + spread_1 / spread_0 * alpha_0 * (x_0 - mean)
    log_density = -((x_1 / sigma_1) ** 2 + math.log(2 * math.pi)) / 2 - math.log(sigma_1)
    return (log_density + math.log(spread_1 / spread_0 * alpha_0)).sum((1, 2, 3))


def mixture(name: str) -> MixtureDenoiser:
    """Three Gaussians of four pixels, whose Jacobian is far from diagonal."""
    means = torch.tensor([[0.5, -0.3, 0.2, 0.6], [-0.6, 0.4, 0.1, -0.2], [0.1, 0.6, -0.7, 0.0]])
    stds, weights = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.3, 0.5, 0.2])
    return MixtureDenoiser(build("schedule", name), means.view(3, 1, 2, 2), stds, weights)


def prior_error(denoiser: MixtureDenoiser, x_0: Tensor) -> Tensor:
    """log N(x_1; 0, sigma_1^2) - log p_1(x_1) where the flow takes x_0, [B]: what starting from pure noise gets wrong.

    By scipy, as d y / d log sigma = y - E[x_0 | y] with y = x / alpha and sigma that of y (Karras et al. 2022, eq. 1).
    """
    alpha_0, sigma_0, alpha_1, sigma_1 = ends(denoiser.schedule)
    if alpha_1 < 1e-12:
        return torch.zeros(len(x_0), dtype=torch.float64)
    means, stds, weights = (part.numpy() for part in (denoiser.means.flatten(1), denoiser.stds, denoiser.weights))

    def derivative(log_sigma: float, y: np.ndarray) -> np.ndarray:
        y = y.reshape(len(x_0), 1, -1)
        variance = stds**2 + math.exp(2 * log_sigma)
        joint = weights * variance**-2.0 * np.exp(-((y - means) ** 2).sum(2) / 2 / variance)
        estimates = means + (stds**2 / variance)[:, None] * (y - means)
        return (y[:, 0] - (joint[..., None] * estimates).sum(1) / joint.sum(1)[:, None]).flatten()

    span = math.log(sigma_0 / alpha_0), math.log(sigma_1 / alpha_1)
    y = solve_ivp(derivative, span, x_0.flatten().numpy(), "DOP853", rtol=1e-9, atol=1e-9).y[:, -1]
    x_1 = alpha_1 * torch.from_numpy(y).view_as(x_0)
    pure = torch.distributions.Normal(0, torch.tensor(sigma_1, dtype=torch.float64)).log_prob(x_1).sum((1, 2, 3))
    return pure - denoiser.log_density(x_1, torch.ones(len(x_0), 1, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_flows_log_density_is_the_mixtures(name: str) -> None:
    """By the exact trace, each image to 1e-4 nats/dim: p at t_min of alpha x_0, times alpha^D, and the prior's error.

    Where t_min is sharp, that is the density of the data within 1e-3 nats/dim.
    """
    denoiser = mixture(name)
    x_0 = denoiser.sample(12, torch.Generator().manual_seed(0))
    alpha, _, _, _ = ends(denoiser.schedule)
    t = torch.full((len(x_0), 1, 1, 1), denoiser.schedule.t_min, dtype=torch.float64)
    prior = prior_error(denoiser, x_0)
    smoothed = denoiser.log_density(alpha * x_0, t) + 4 * math.log(alpha)
    actual = ode_log_density(denoiser, x_0)
    torch.testing.assert_close(actual / 4, (smoothed + prior) / 4, rtol=0, atol=1e-4)
    assert float(prior.abs().max()) / 4 < 0.02
    if name in SHARP:
        exact = denoiser.log_density(x_0, torch.zeros_like(t))
        torch.testing.assert_close(actual / 4, (exact + prior) / 4, rtol=0, atol=1e-3)


def test_the_sharp_schedules_are_nearly_all() -> None:
    """So that the tests of 8-bit images, which need them, test something."""
    assert {"linear", "cosine", "vp", "cosine_continuous", "flow", "edm"} <= set(SHARP)


@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_but(
        [*((name, torch.float32) for name in SCHEDULES), ("linear", torch.float64), ("edm", torch.float64)],
        itertools.product(SCHEDULES, [torch.float32, torch.float64]),
    ),
)
def test_the_flows_log_density_is_the_gaussians(name: str, dtype: torch.dtype) -> None:
    """The Jacobian is diagonal, so that one probe of +-1 gives the exact trace, too."""
    denoiser = GaussianDenoiser(build("schedule", name), MEAN, STD)
    x_0 = MEAN + STD * draw(5, 2, 1, 2)
    expected = gaussian_log_density(denoiser.schedule, x_0)
    for probe in (None, draw(5, 2, 1, 2, seed=1).sign().to(dtype)):
        actual = ode_log_density(denoiser, x_0.to(dtype), probe)
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double() / 4, expected / 4, rtol=0, atol=2e-4)


def test_a_probe_gives_the_exact_trace_in_expectation() -> None:
    """400 probes of one image: the mean within 4 standard errors of the exact value, each about 0.01 nats/dim."""
    denoiser, num = mixture("cosine"), 400
    x_0 = denoiser.sample(1, torch.Generator().manual_seed(3))
    probes = draw(num, 1, 2, 2, seed=1).sign()
    estimates = ode_log_density(denoiser, x_0.expand(num, -1, -1, -1), probes, rtol=1e-4, atol=1e-4)
    error = float(estimates.std()) / math.sqrt(num)
    assert 0.01 < error < 0.05
    assert abs(float(estimates.mean() - ode_log_density(denoiser, x_0))) < 4 * error


def test_the_two_traces_are_those_of_the_jacobian() -> None:
    """Of each image's own; a probe's is its quadratic form."""
    weight = draw(6, 6)
    x = draw(3, 1, 2, 3, seed=1).requires_grad_()
    output = (torch.sin(x.flatten(1)) @ weight.T).view_as(x)
    jacobian = weight * torch.cos(x.detach().flatten(1))[:, None, :]
    probe = draw(3, 1, 2, 3, seed=2)
    expected = torch.einsum("bi,bij,bj->b", probe.flatten(1), jacobian, probe.flatten(1))
    torch.testing.assert_close(probed_trace(output, x, probe).detach(), expected)
    output = (torch.sin(x.flatten(1)) @ weight.T).view_as(x)
    torch.testing.assert_close(exact_trace(output, x).detach(), jacobian.diagonal(dim1=1, dim2=2).sum(1))


def test_an_images_log_density_does_not_depend_on_its_batch() -> None:
    denoiser = mixture("linear")
    x_0, probe = denoiser.sample(4, torch.Generator().manual_seed(0)), draw(4, 1, 2, 2).sign()
    x_0[2] *= 4
    together = ode_log_density(denoiser, x_0, probe, rtol=1e-4)
    for rows in ([2], [3, 1]):
        apart = ode_log_density(denoiser, x_0[rows], probe[rows], rtol=1e-4)
        torch.testing.assert_close(apart, together[rows], rtol=1e-12, atol=0)


def test_a_smaller_tolerance_gives_a_smaller_error_and_more_steps() -> None:
    denoiser = GaussianDenoiser(build("schedule", "cosine_continuous"), MEAN, STD)
    x_0 = MEAN + STD * draw(3, 1, 2, 2)
    expected, errors, steps = gaussian_log_density(denoiser.schedule, x_0), [], []
    calls: list[bool] = []
    denoiser.register_forward_pre_hook(lambda *_: calls.append(True))
    for tolerance in (1e-3, 1e-6, 1e-9):
        calls.clear()
        actual = ode_log_density(denoiser, x_0, x_0.sign(), rtol=tolerance, atol=tolerance)
        errors.append(float((actual - expected).abs().max()))
        steps.append(len(calls))
        assert errors[-1] < 100 * tolerance
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert steps == sorted(set(steps))


class Shifted(GaussianDenoiser):
    """Class k has the mean k / 10; remembers the labels."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule, 0.0, STD)
        self.asked: list[Condition] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        self.asked.append(condition)
        assert condition.label is not None
        shift = condition.label.view(-1, 1, 1, 1) / 10
        p = super().forward(x_t - self.schedule.alpha(t) * shift, t)
        return replace(p, x_0=p.x_0 + shift, x_t=x_t)


def test_both_likelihoods_are_those_of_the_class() -> None:
    """The same label at each call, and the density about the class's mean."""
    denoiser, condition = Shifted(build("schedule", "vp")), Condition(torch.tensor([0, 4, -3]))
    x_0 = torch.full((3, 1, 2, 2), 30 / 255, dtype=torch.float64)
    actual = ode_log_density(denoiser, x_0, torch.ones_like(x_0), condition)
    for i, mean in enumerate((0.0, 0.4, -0.3)):
        expected = gaussian_log_density(denoiser.schedule, x_0[i : i + 1], mean)
        torch.testing.assert_close(actual[i : i + 1], expected, rtol=0, atol=1e-3)
    bits = ode_likelihood(denoiser, x_0, draws(x_0.shape), condition).bits_per_dim
    bound = variational_bound(denoiser, x_0, draws(x_0.shape), condition, 10, "large").total
    for given in (bits, bound):
        assert given.argsort().tolist() == [0, 1, 2]
    assert all(given is condition for given in denoiser.asked)


@pytest.mark.parametrize("name", SHARP)
def test_dequantised_likelihood_of_8_bit_images_is_that_of_their_bins(name: str) -> None:
    """Image for image the density at the dequantised pixel and noise, and the decoder; on average the exact bits/dim.

    Within 3 standard errors (of 3200 pixels, about 2e-4 bits/dim) and two gaps: the mean log is under the log of the
    mean by half the log density's variance in the bin, (2 / 255)^2 / 24 / STD^2 = 4.1e-5 nats; the noise at the start
    and the prior take less than 3e-5 bits here.
    """
    denoiser = GaussianDenoiser(build("schedule", name), MEAN, STD)
    x_0, exact = eight_bit(200)
    likelihood = ode_likelihood(denoiser, x_0, draws(x_0.shape, seed=5))
    start, noise = half_a_bin(denoiser.schedule), draws(x_0.shape, seed=5)
    alpha, sigma, _, _ = ends(denoiser.schedule, start)
    ratio = sigma / alpha
    x = x_0 + 2 / 255 * (torch.special.ndtr(noise()) - 0.5) + ratio * noise()
    estimate = MEAN + STD**2 / (STD**2 + ratio**2) * (x - MEAN)
    (low, high), (left, right) = (
        [torch.special.ndtr((x_0 + side / 255 - center) / ratio) for side in (-1, 1)] for center in (estimate, x)
    )
    decoder = torch.where(x_0 < 1, high, 1) - torch.where(x_0 > -1, low, 0)
    spread = (right - left) / (2 / 255)  # the density of x about x_0
    density = gaussian_log_density(denoiser.schedule, x, start=start) / 16
    density += (decoder.log() - spread.log()).mean((1, 2, 3))
    torch.testing.assert_close(likelihood.bits_per_dim, -density / math.log(2), rtol=0, atol=2e-4)
    difference = likelihood.bits_per_dim - exact
    error = float(difference.std()) / math.sqrt(len(x_0))
    gap = (2 / 255) ** 2 / 24 / STD**2 / math.log(2)
    assert error < 3e-4
    assert abs(float(difference.mean()) - gap) < 3 * error + 3e-5
    assert likelihood.mean == pytest.approx(float(exact.mean()), abs=1e-3)


def pixels(*, certain: Sequence[int] = (), spread: float = 0.0) -> np.ndarray:
    """Probabilities of the 256 levels: of those that are certain, or about level 140 with a standard deviation."""
    distance = (np.arange(256) - 140) / max(spread, 1e-9)
    probability = np.exp(-(distance**2) / 2) * (np.abs(distance) < 5)
    if certain:
        probability = np.isin(np.arange(256), certain).astype(float)
    return probability / probability.sum()


PIXELS = {
    "likely neighbours": pixels(spread=6.0),
    "black or white": pixels(certain=[0, 255]),
    "certain": pixels(certain=[140]),
}
GAPS = {"likely neighbours": (0.0015, 0.0015), "black or white": (0.3, 0.65), "certain": (0.6, 1.8)}
"""At most so many bits/dim above the entropy from half a bin, and from 1.3 bins."""


def exact_model(schedule: Schedule, probability: np.ndarray) -> MixtureDenoiser:
    """Of images of one 8-bit pixel: without a spread of their own, levels are all that its density is made of."""
    levels = np.flatnonzero(probability)
    weights = torch.from_numpy(probability[levels])
    return MixtureDenoiser(schedule, LEVELS[levels].view(-1, 1, 1, 1), torch.zeros(len(levels)), weights)


def literal_bits(denoiser: MixtureDenoiser, x_0: Tensor, u: Tensor, eps: Tensor) -> Tensor:
    """log q(x_t | x_0) - log p(x_t) - log P(x_0 | x_t) in bits, by the model's own density, for images of one pixel."""
    schedule, start = denoiser.schedule, half_a_bin(denoiser.schedule)
    t = torch.full((len(x_0), 1, 1, 1), start, dtype=torch.float64)
    alpha, ratio = schedule.alpha(t), schedule.sigma(t) / schedule.alpha(t)
    offset = 2 / 255 * u + ratio * eps
    x_t = alpha * (x_0 + offset)
    left, right = (torch.special.ndtr((side / 255 - offset) / ratio) for side in (-1, 1))
    log_q = ((right - left) / (2 / 255) / alpha).log()
    log_p = denoiser.log_density(x_t, t).view(-1, 1, 1, 1)
    decoder = discretized_gaussian_nll(x_0, denoiser(x_t, t).x_0, ratio.log())
    return (log_q - log_p + decoder).flatten() / math.log(2)


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize(
    "name",
    [
        *("linear", "vp", "flow"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cosine", "edm", "cosine_continuous")),
    ],
)
def test_an_exact_model_of_8_bit_pixels_has_nearly_their_entropy(name: str, kind: str) -> None:
    """Whatever the schedule's least noise: the ODE gives the formula image for image, whose mean over all levels, u and
    eps is above the entropy by what the docstring says. From sigma = 0.001, as `flow` has it, it would be by 2.1.
    """
    probability, num = PIXELS[kind], 40
    denoiser = exact_model(build("schedule", name), probability)
    k = torch.from_numpy(probability).multinomial(num, replacement=True, generator=torch.Generator().manual_seed(0))
    x_0, source = LEVELS[k].view(-1, 1, 1, 1), draws((num, 1, 1, 1))
    literal = literal_bits(denoiser, x_0, torch.special.ndtr(source()) - 0.5, source())
    bits = ode_likelihood(denoiser, x_0, draws(x_0.shape), rtol=1e-6, atol=1e-6).bits_per_dim
    torch.testing.assert_close(bits, literal, rtol=0, atol=0.01)  # the prior's error, largest on edm
    assert abs(float((bits - literal).mean())) < 5e-4

    (at, along), (nodes, weights) = np.polynomial.legendre.leggauss(20), np.polynomial.hermite_e.hermegauss(20)
    levels = np.flatnonzero(probability)
    grid = np.meshgrid(levels, at / 2, nodes, indexing="ij")
    x_0, u, eps = (torch.from_numpy(axis.flatten()).view(-1, 1, 1, 1) for axis in (LEVELS.numpy()[grid[0]], *grid[1:]))
    mean = np.einsum("i,j,k->ijk", probability[levels], along / 2, weights / weights.sum()).flatten()
    gap = float(torch.from_numpy(mean) @ literal_bits(denoiser, x_0, u, eps))
    gap += (probability[levels] * np.log2(probability[levels])).sum()
    assert 0 < gap < GAPS[kind][name in ("linear", "cosine", "vp")]


def test_dequantisation_fills_the_bin_and_probes_are_signs() -> None:
    """The model is asked first about x_0 within 1 / 255 of each pixel, evenly, and noise of half a bin beside it.

    Mean and spread of 4000 pixels.
    """

    class Asked(GaussianDenoiser):
        first: Tensor | None = None

        def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
            p = super().forward(x_t, t)
            if self.first is None:
                self.first = x_t.detach() / p.alpha
            return p

    denoiser = Asked(build("schedule", "flow"), MEAN, STD)
    x_0 = LEVELS[::16].view(16, 1, 1, 1).expand(16, 1, 16, 16)
    ode_likelihood(denoiser, x_0, draws(x_0.shape), rtol=1e-2, atol=1e-2)
    assert denoiser.first is not None
    source = draws(x_0.shape)
    _, noise = source(), source()
    offset = (denoiser.first - x_0) * 255 - noise
    assert 0.99 < float(offset.max()) < 1 + 1e-9
    assert -1 - 1e-9 < float(offset.min()) < -0.99
    num = offset.numel()
    assert abs(float(offset.mean())) < 5 / math.sqrt(3 * num)  # 5 standard errors of each
    assert abs(float(offset.square().mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / num)


def test_the_standard_error_is_the_spread_of_repeated_runs() -> None:
    """40 runs of 20 images: the spread of their means, itself known to 11 %, within 4 such of the mean stated error."""
    wide = mixture("cosine_continuous")
    denoiser = MixtureDenoiser(wide.schedule, 0.3 * wide.means, 0.3 * wide.stds, wide.weights)
    x_0 = denoiser.sample(800, torch.Generator().manual_seed(0)).add(1).mul(127.5).round() / 127.5 - 1
    assert float(x_0.abs().max()) < 1
    bits = ode_likelihood(denoiser, x_0, draws(x_0.shape), rtol=1e-3, atol=1e-3).bits_per_dim
    runs = [Likelihood(run) for run in bits.view(40, 20)]
    means = torch.tensor([run.mean for run in runs])
    stated = math.sqrt(sum(run.standard_error**2 for run in runs) / len(runs))
    assert stated / float(means.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * 39))
    exact = -denoiser.log_density(x_0, torch.zeros(len(x_0), 1, 1, 1).double()) / 4 / math.log(2) + math.log2(255 / 2)
    assert abs(Likelihood(bits).mean - float(exact.mean())) < 5 * Likelihood(bits - exact).standard_error + 1e-3


def test_one_image_has_no_standard_error() -> None:
    likelihood = Likelihood(torch.tensor([2.5]))
    assert likelihood.mean == 2.5
    assert math.isnan(likelihood.standard_error)
    assert Likelihood(torch.tensor([1.0, 3.0])).standard_error == pytest.approx(1)


def test_likelihood_keeps_no_graph_and_needs_none() -> None:
    """Within no_grad as well, and with weights that want gradients; they get none. Float32 images stay float32."""

    class Weighted(Fake):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
            assert x.dtype == torch.float32
            return self.weight * torch.tanh(x)

    denoiser = Denoiser(Weighted(), build("schedule", "vp"), VParameterization())
    x_0 = torch.zeros(2, 1, 2, 2)
    free = ode_likelihood(denoiser, x_0, draws(x_0.shape, dtype=torch.float32)).bits_per_dim
    with torch.no_grad():
        held = ode_likelihood(denoiser, x_0, draws(x_0.shape, dtype=torch.float32)).bits_per_dim
    assert torch.equal(free, held)
    bound = variational_bound(denoiser, x_0, draws(x_0.shape, dtype=torch.float32), num_steps=3)
    assert not (free.requires_grad or held.requires_grad or bound.total.requires_grad)
    assert all(p.grad is None for p in denoiser.parameters())


def test_a_model_that_gives_nan_is_named() -> None:
    class Broken(GaussianDenoiser):
        def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
            p = super().forward(x_t, t)
            return replace(p, x_0=torch.where(t > 0.5, math.nan, p.x_0))

    denoiser = Broken(build("schedule", "vp"), MEAN, STD)
    with pytest.raises(FloatingPointError, match="does the model give NaN"):
        ode_likelihood(denoiser, torch.zeros(2, 1, 2, 2), draws((2, 1, 2, 2), dtype=torch.float32))


class Spread(GaussianDenoiser):
    """Says of each step that its variance is the large one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.learns_variance = True

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        return replace(super().forward(x_t, t), variance=torch.ones_like(x_t))


Chain = tuple[Schedule, int | None]


def chain(name: str, num_steps: int) -> Chain:
    """A schedule and the number of steps to take of it: linear and cosine made for it, vp in so many steps.

    Linear's betas are scaled by 1000 / T, and those that then pass 1 held below it.
    """
    if name == "linear":
        return LinearSchedule(num_steps, 0.1 / num_steps, min(20 / num_steps, 0.999)), None
    return (CosineSchedule(num_steps), None) if name == "cosine" else (VPSchedule(), num_steps)


def closed_form(schedule: Schedule, num_steps: int | None, variance: str) -> tuple[float, float, float]:
    """The bound's expectation over 8-bit Gaussian data and noise in bits/dim: prior, divergences, decoder.

    `learned` has the large variance at every step, `large` at all but the decoder's.

    With x_0 known, x_0 - E[x_0 | x_t] = (1 - g alpha) (x_0 - MEAN) - g sigma eps, g = alpha STD^2 / (alpha^2 STD^2 +
    sigma^2); the divergence is quadratic in it. The decoder's mean is E[x_0 | x_t], integrated by Gauss and Hermite.
    """
    probability = level_probabilities()
    x_0 = LEVELS.numpy()
    times = spaced_times(schedule, num_steps)
    alpha, sigma = schedule.alpha(times).numpy(), schedule.sigma(times).numpy()
    prior = (probability * (alpha[0] * x_0 / sigma[0]) ** 2).sum() / 2
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    second_moment = (probability * (x_0 - MEAN) ** 2).sum()
    miss = (1 - gain * alpha) ** 2 * second_moment + (gain * sigma) ** 2
    divergence = 0.0
    for t, s in pairwise(range(len(times) - 1)):
        c = 1 - (alpha[t] * sigma[s] / sigma[t] / alpha[s]) ** 2
        spread = c * (sigma[s] if variance == "small" else sigma[t]) ** 2
        ratio = 1.0 if variance == "small" else (sigma[s] / sigma[t]) ** 2
        divergence += (ratio - 1 - math.log(ratio) + (alpha[s] * c) ** 2 * miss[t] / spread) / 2
    t = times[-2]
    spread = float(sigma[-2])
    if variance != "learned":  # that of the step from 2 t to t
        spread *= math.sqrt(float(schedule.denoised_fraction(t, 2 * t)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    g, a = gain[-2], alpha[-2]
    x_t = a * x_0[:, None] + sigma[-2] * nodes
    mean = MEAN + g * (x_t - a * MEAN)
    low, high = ((x_0[:, None] + side / 255 - mean) / spread for side in (-1, 1))
    low[0], high[-1] = -np.inf, np.inf
    mass = np.where(low > 0, norm.cdf(-low) - norm.cdf(-high), norm.cdf(high) - norm.cdf(low))
    decoder = (probability[:, None] * weights / weights.sum() * -np.log(mass)).sum()
    return prior / math.log(2), divergence / math.log(2), decoder / math.log(2)


def expected_bound(schedule: Schedule, num_steps: int | None, variance: str) -> Bound:
    """The same by `variational_bound`: every level with every node of the noise an image of one pixel, weighted."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    probability = torch.from_numpy(np.outer(level_probabilities(), weights / weights.sum()).flatten())
    x_0 = LEVELS.repeat_interleave(8).view(-1, 1, 1, 1)
    eps = torch.from_numpy(nodes).repeat(256).view(-1, 1, 1, 1)
    denoiser = Spread(schedule, MEAN, STD)
    bound = variational_bound(denoiser, x_0, lambda: eps, num_steps=num_steps, variance=variance)
    return Bound(probability @ bound.prior, probability @ bound.terms)


@pytest.mark.parametrize("num_steps", [10, 40])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", ["linear", "cosine", "vp"])
def test_the_bounds_parts_are_their_closed_forms(name: str, variance: str, num_steps: int) -> None:
    """Without statistical error, and never below the data's entropy."""
    schedule, number = chain(name, num_steps)
    bound = expected_bound(schedule, number, variance)
    parts = float(bound.prior), float(bound.terms[:-1].sum()), float(bound.terms[-1])
    assert parts == pytest.approx(closed_form(schedule, number, variance), rel=1e-6, abs=1e-12)
    probability = level_probabilities()
    assert sum(parts) > -(probability * np.log2(probability)).sum()


def chain_bound(schedule: Schedule, num_steps: int | None, variance: str) -> float:
    """The same in one call for all steps: times are the batch, and what the terms' means need are two draws of noise.

    A divergence is quadratic in x_0 and the noise, so that two values of each, one standard deviation to either side,
    give its mean. The decoder's comes from its closed form, as it needs more.
    """
    times = spaced_times(schedule, num_steps)[:-1].view(-1, 1, 1, 1)
    t, s = times[:-1], times[1:]
    probability = level_probabilities()
    mean = (probability * LEVELS.numpy()).sum()
    spread = math.sqrt((probability * (LEVELS.numpy() - mean) ** 2).sum())
    x_0 = mean + spread * torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).double().expand(len(t), 1, 2, 2)
    eps = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]).double().expand(len(t), 1, 2, 2)
    p = Spread(schedule, MEAN, STD)(schedule.add_noise(x_0, eps, t), t)
    divergence = float(bound_term(p, x_0, s, variance).sum())
    prior, expected, decoder = closed_form(schedule, num_steps, variance)
    assert divergence == pytest.approx(expected, rel=1e-6)
    return prior + divergence + decoder


@pytest.mark.parametrize("name", ["linear", "cosine", "vp"])
def test_the_bound_approaches_the_exact_bits_per_dim(name: str) -> None:
    """With a learned variance that is large, right where noise hides little of the data: as T = 10, 100, 1000, the gap
    falls below 0.02. Where large is not learned, the decoder's smaller variance costs Gaussian data up to 0.16 more.

    Small variance is a single image's, and costs (r - 1 - log r) / 2 nats more at a step between variances of noise of
    the ratio r. Near the data each is 2, 3/2, 4/3, ... times the one before, whatever T: its gap does not vanish.
    """
    probability = level_probabilities()
    entropy = -(probability * np.log2(probability)).sum()
    gaps = {
        variance: [chain_bound(*chain(name, num), variance) - entropy for num in (10, 100, 1000)]
        for variance in VARIANCES
    }
    assert all(gap > 0 for gap in gaps["small"] + gaps["large"] + gaps["learned"]), gaps
    assert gaps["learned"][0] > 3 * gaps["learned"][1] > 9 * gaps["learned"][2], gaps
    assert gaps["learned"][2] < 0.02, gaps
    assert gaps["large"][2] < 0.17, gaps
    assert gaps["small"][1] > gaps["small"][2] > 0.4, gaps


def test_the_bound_of_1000_steps_is_the_bits_per_dim_on_random_images() -> None:
    """With real draws of data and noise: above the exact value of these images by the closed form's gap, within 4
    standard errors (each about 0.04 bits/dim).
    """
    schedule, number = chain("vp", 1000)
    x_0, exact = eight_bit(100)
    noise = draws(x_0.shape, seed=1)
    bound = variational_bound(GaussianDenoiser(schedule, MEAN, STD), x_0, noise, num_steps=number, variance="large")
    assert bound.terms.shape == (100, 1000)
    probability = level_probabilities()
    gap = sum(closed_form(schedule, number, "large")) + (probability * np.log2(probability)).sum()
    difference = bound.total - exact
    error = float(difference.std()) / 10
    assert 0.01 < error < 0.06
    assert abs(float(difference.mean()) - gap) < 4 * error


@pytest.mark.parametrize("num_steps", [2, 30])
@pytest.mark.parametrize("name", [name for name in SCHEDULES if build("schedule", name).variance_preserving])
def test_large_variance_is_exact_for_a_unit_gaussian(name: str, num_steps: int) -> None:
    """However few the steps: prior and divergences sum to what x_0 tells of x_t at the last step's start.

    That is log(1 + SNR) / 2 nats, plus the prior's error, N(0, sigma_1^2) instead of N(0, 1): below 1e-4 bits/dim of
    schedules that end in noise, and in closed form (1 / sigma_1^2 - 1 + log sigma_1^2) / 2. With small variance it is
    more. Two values of x_0 and of the noise give the mean of a quadratic.
    """
    schedule = build("schedule", name)
    x_0 = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64).view(4, 1, 1, 1)
    eps = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64).view(4, 1, 1, 1)
    denoiser = GaussianDenoiser(schedule, 0.0, 1.0)
    large, small = (
        variational_bound(denoiser, x_0, lambda: eps, num_steps=num_steps, variance=v) for v in ("large", "small")
    )
    last = spaced_times(schedule, num_steps)[-2]
    noise = float(schedule.sigma(torch.ones(1, dtype=torch.float64))) ** 2
    information = (math.log1p(float(schedule.snr(last))) + 1 / noise - 1 + math.log(noise)) / 2 / math.log(2)
    assert float((large.prior + large.terms[:, :-1].sum(1)).mean()) == pytest.approx(information, rel=1e-5)
    assert float((small.prior + small.terms[:, :-1].sum(1)).mean()) > 1.02 * information


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_prior_is_its_closed_form(name: str) -> None:
    """KL(N(alpha x_0, sigma^2) || N(0, sigma^2)) = alpha^2 x_0^2 / (2 sigma^2), as sampling starts from sigma noise."""
    schedule = build("schedule", name)
    x_0 = draw(6, 1, 4, 4)
    bound = variational_bound(GaussianDenoiser(schedule, MEAN, STD), x_0, draws(x_0.shape), num_steps=3)
    _, _, alpha, sigma = ends(schedule)
    expected = (alpha / sigma) ** 2 / 2 * x_0.square().mean((1, 2, 3)) / math.log(2)
    torch.testing.assert_close(bound.prior, expected, rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize("num_steps", [2, 7, None])
def test_the_bound_sums_one_term_for_each_step_of_the_walk(num_steps: int | None) -> None:
    """In order from t = 1, each with a draw of its own."""
    schedule = CosineSchedule(12)
    denoiser = GaussianDenoiser(schedule, MEAN, STD)
    x_0, _ = eight_bit(3)
    bound = variational_bound(denoiser, x_0, draws(x_0.shape), num_steps=num_steps, variance="large")
    noise, terms = draws(x_0.shape), []
    for t, s in pairwise(spaced_times(schedule, num_steps).view(-1, 1, 1, 1, 1)):
        p = denoiser(schedule.add_noise(x_0, noise(), t.expand(3, 1, 1, 1)), t.expand(3, 1, 1, 1))
        terms.append(bound_term(p, x_0, s, "large"))
    torch.testing.assert_close(bound.terms, torch.stack(terms, 1), rtol=1e-12, atol=0)
    assert bound.terms.shape == (3, num_steps or 12)
    torch.testing.assert_close(bound.total, bound.prior + torch.stack(terms, 1).sum(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_bound_of_one_step_is_the_decoder(variance: str) -> None:
    """From pure noise to pixels; the large variance is then sigma^2. On every schedule."""
    x_0, _ = eight_bit(3)
    for schedule in (build("schedule", name) for name in SCHEDULES):
        denoiser = GaussianDenoiser(schedule, MEAN, STD)
        bound = variational_bound(denoiser, x_0, draws(x_0.shape), num_steps=1, variance=variance)
        assert bound.terms.isfinite().all(), type(schedule)
        if variance == "large":
            t = torch.ones(3, 1, 1, 1, dtype=torch.float64)
            p = denoiser(schedule.add_noise(x_0, draws(x_0.shape)(), t), t)
            expected = discretized_gaussian_nll(x_0, p.x_0, p.sigma.log()).mean((1, 2, 3)) / math.log(2)
            torch.testing.assert_close(bound.terms[:, 0], expected)


def test_a_clipped_bound_is_that_of_a_model_that_clips_itself() -> None:
    class Clipped(GaussianDenoiser):
        def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
            return super().forward(x_t, t, condition).clip(0.3)

    schedule = CosineSchedule(10)
    x_0, _ = eight_bit(4)
    clipped = variational_bound(GaussianDenoiser(schedule, MEAN, STD), x_0, draws(x_0.shape), clip=0.3)
    itself = variational_bound(Clipped(schedule, MEAN, STD), x_0, draws(x_0.shape))
    free = variational_bound(GaussianDenoiser(schedule, MEAN, STD), x_0, draws(x_0.shape))
    assert torch.equal(clipped.terms, itself.terms)
    assert float((clipped.total - free.total).abs().min()) > 0.01


class Fraction(Fake):
    """Predicts nothing but a variance: -1 is small, 1 is large."""

    learn_variance = True

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return torch.cat([torch.zeros_like(x), torch.full_like(x, self.value)], 1)


def test_a_learned_variance_lies_where_the_network_says() -> None:
    x_0, _ = eight_bit(4)

    def bound(value: float, variance: str) -> Tensor:
        denoiser = Denoiser(Fraction(value), CosineSchedule(10), VParameterization())
        return variational_bound(denoiser, x_0, draws(x_0.shape), variance=variance).terms

    torch.testing.assert_close(bound(-1, "learned"), bound(0.7, "small"))
    torch.testing.assert_close(bound(1, "learned")[:, :-1], bound(0.7, "large")[:, :-1])
    torch.testing.assert_close(
        bound(-1, "learned")[:, -1], bound(0.7, "large")[:, -1]
    )  # the decoder's is the small one
    assert not torch.allclose(bound(0, "learned"), bound(1, "learned"))


def test_a_variance_that_the_model_does_not_have_is_refused() -> None:
    denoiser = GaussianDenoiser(CosineSchedule(10), MEAN, STD)
    x_0, _ = eight_bit(1)
    for variance in ("learned", "medium"):
        with pytest.raises(ValueError, match=rf"does not have variance={variance}; .*model.learn_variance=true"):
            variational_bound(denoiser, x_0, draws(x_0.shape), variance=variance)
    learns = Denoiser(Fraction(0), CosineSchedule(10), VParameterization())
    with pytest.raises(ValueError, match="this model does not have variance=medium; choose small or large, or learned"):
        variational_bound(learns, x_0, draws(x_0.shape), variance="medium")


def test_a_number_of_steps_that_the_schedule_cannot_take_is_refused() -> None:
    x_0, _ = eight_bit(1)
    for schedule, num_steps, message in (
        (CosineSchedule(10), 11, "cannot take 11"),
        (CosineSchedule(10), 0, "cannot take 0"),
        (VPSchedule(), None, "continuous"),
    ):
        with pytest.raises(ValueError, match=message):
            variational_bound(GaussianDenoiser(schedule, MEAN, STD), x_0, draws(x_0.shape), num_steps=num_steps)
