"""The discrete schedules against the published formulas, the Markov chain and Bayes' rule."""

import math
import operator
import warnings
from itertools import accumulate, pairwise
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.schedule import (
    CosineSchedule,
    DiscreteSchedule,
    LinearSchedule,
    QuadraticSchedule,
    ScaledLinearSchedule,
    Schedule,
    SigmoidSchedule,
    SqrtSchedule,
    spaced_times,
)
from tests.analytic import build, grid_times, members

SCHEDULES = members("schedule", DiscreteSchedule)
T = 1000
TABLES = (
    "betas",
    "alphas",
    "abar",
    "abar_prev",
    "sqrt_abar",
    "sqrt_one_minus_abar",
    "snr_table",
    "posterior_mean_coef_x_0",
    "posterior_mean_coef_x_t",
    "posterior_variance",
)


def table_of(schedule: DiscreteSchedule, name: str) -> Tensor:
    """A table of the schedule, one row per step: an attribute of this name, or its functions at the steps' times."""
    if hasattr(schedule, name):
        return getattr(schedule, name)
    steps = grid_times(schedule, list(range(schedule.num_timesteps + 1))).flatten()
    s, t = steps[:-1], steps[1:]
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    return {
        "abar_prev": schedule.alpha(s) ** 2,
        "sqrt_abar": schedule.alpha(t),
        "sqrt_one_minus_abar": schedule.sigma(t),
        "posterior_mean_coef_x_0": schedule.posterior(one, zero, s, t)[0],
        "posterior_mean_coef_x_t": schedule.posterior(zero, one, s, t)[0],
    }[name]


def linear_betas() -> list[float]:
    return [1e-4 + (t - 1) / (T - 1) * (0.02 - 1e-4) for t in range(1, T + 1)]


def quadratic_betas() -> list[float]:
    return [1e-4 + (0.02 - 1e-4) * (t / T) ** 2 for t in range(1, T + 1)]


def sigmoid_betas() -> list[float]:
    return [(0.02 - 1e-4) / (1 + math.exp(6 - 12 * t / T)) + 1e-4 for t in range(1, T + 1)]


def cosine_betas() -> list[float]:
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    abar = [value / f[0] for value in f]
    return [min(max(1 - abar[t] / abar[t - 1], 1e-4), 0.9999) for t in range(1, T + 1)]


def scaled_linear_betas() -> list[float]:
    low, high = math.sqrt(1e-4), math.sqrt(0.02)
    return [(low + (t - 1) / (T - 1) * (high - low)) ** 2 for t in range(1, T + 1)]


def sqrt_betas() -> list[float]:
    abar = [1.0] + [max(1 - math.sqrt(t / T + 1e-4), 0.0) for t in range(1, T + 1)]
    return [min(1 - abar[t] / abar[t - 1], 0.999) for t in range(1, T + 1)]


PUBLISHED = {
    "linear": linear_betas(),
    "cosine": cosine_betas(),
    "quadratic": quadratic_betas(),
    "sigmoid": sigmoid_betas(),
    "scaled_linear": scaled_linear_betas(),
    "sqrt": sqrt_betas(),
}


def tables_of(betas: list[float]) -> dict[str, list[float]]:
    """DDPM's tables (Ho et al. 2020, eq. 4, 7); 1 - abar_t = (1 - abar_{t-1}) + abar_{t-1} beta_t cancels nothing."""
    tables: dict[str, list[float]] = {name: [] for name in TABLES}
    abar, noise = 1.0, 0.0
    for beta in betas:
        abar_prev, noise_prev = abar, noise
        abar, noise = abar_prev * (1 - beta), noise_prev + abar_prev * beta
        row = {
            "betas": beta,
            "alphas": 1 - beta,
            "abar": abar,
            "abar_prev": abar_prev,
            "sqrt_abar": math.sqrt(abar),
            "sqrt_one_minus_abar": math.sqrt(noise),
            "snr_table": abar / noise,
            "posterior_mean_coef_x_0": math.sqrt(abar_prev) * beta / noise,
            "posterior_mean_coef_x_t": math.sqrt(1 - beta) * noise_prev / noise,
            "posterior_variance": noise_prev / noise * beta,
        }
        for name, value in row.items():
            tables[name].append(value)
    return tables


def some_steps(num: int, seed: int = 0) -> list[tuple[int, int]]:
    """Random steps s < t, with the ends of the chain among them."""
    random = Random(seed)
    pairs = [tuple(sorted(random.sample(range(T + 1), 2))) for _ in range(num)]
    return [(0, 1), (1, 2), (0, T), (1, T), (T - 1, T), *pairs]


@pytest.mark.parametrize("name", members("schedule"))
def test_every_member_instantiates_by_itself(name: str) -> None:
    assert isinstance(build("schedule", name), Schedule)


@pytest.mark.parametrize("name", SCHEDULES)
def test_betas_are_one_per_step_in_float64(name: str) -> None:
    betas = build("schedule", name, num_timesteps=1234).betas
    assert betas.dtype == torch.float64
    assert len(betas) == 1234
    assert ((betas > 0) & (betas < 1)).all()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_tables_match_the_published_formulas(name: str, table: str) -> None:
    actual = table_of(build("schedule", name), table)
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), tables_of(PUBLISHED[name])[table], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "beta_1", "beta_500", "beta_1000", "abar_500", "abar_1000", "posterior_variance_500"),
    [
        ("linear", 1e-4, 0.01004004004004004, 0.02, 0.07858724288177824, 4.035829765375684e-5, 0.01003135541461369),
        ("cosine", 1e-4, 0.003145886230478197, 0.9999, 0.4936538061499962, 2.427833530934206e-10, 0.003136207255666755),
        ("quadratic", 1.000199e-4, 0.005075, 0.02, 0.4135452094654122, 0.001131687740347428, 0.00505674548892073),
        (
            "sigmoid",
            1.497977337416509e-4,
            0.01005,
            0.01995079479918297,
            0.3000926538403981,
            3.92875533905899e-5,
            0.01000625447067856,
        ),
        (
            "scaled_linear",
            1e-4,
            0.0057221511477685638,
            0.02,
            0.33318776735629981,
            7.3341245958081491e-4,
            0.0057056962049835541,
        ),
        (
            "sqrt",
            0.033166247903553998,
            0.0024099414694759404,
            0.999,
            0.29282251167051422,
            4.5010129558814506e-7,
            0.0024075308042037338,
        ),
    ],
)
def test_golden_values(
    name: str,
    beta_1: float,
    beta_500: float,
    beta_1000: float,
    abar_500: float,
    abar_1000: float,
    posterior_variance_500: float,
) -> None:
    """The formulas evaluated with 50 digits."""
    schedule = build("schedule", name)
    assert float(schedule.betas[0]) == pytest.approx(beta_1, rel=1e-11)
    assert float(schedule.betas[499]) == pytest.approx(beta_500, rel=1e-11)
    assert float(schedule.betas[999]) == pytest.approx(beta_1000, rel=1e-11)
    assert float(schedule.abar[499]) == pytest.approx(abar_500, rel=1e-11)
    assert float(schedule.abar[999]) == pytest.approx(abar_1000, rel=1e-11)
    assert float(schedule.posterior_variance[499]) == pytest.approx(posterior_variance_500, rel=1e-11)


@pytest.mark.parametrize("name", SCHEDULES)
def test_functions_of_time_read_the_tables(name: str) -> None:
    schedule = build("schedule", name)
    t = grid_times(schedule, list(range(1, T + 1))).flatten()
    torch.testing.assert_close(schedule.alpha(t), schedule.abar.sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.sigma(t) ** 2 + schedule.alpha(t) ** 2, torch.ones_like(t), rtol=1e-14, atol=0)
    torch.testing.assert_close(schedule.snr(t), schedule.snr_table, rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.c_noise(t), torch.arange(T, dtype=torch.float64), rtol=0, atol=0)
    start = torch.zeros(1, dtype=torch.float64)
    assert (float(schedule.alpha(start)), float(schedule.sigma(start))) == (1, 0)
    assert float(schedule.log_snr(start)) == math.inf


def zero_terminal_betas(betas: list[float]) -> list[float]:
    """Lin et al. 2023, algorithm 1: sqrt(abar) shifted to end at 0, then scaled to begin where it did."""
    root = [math.sqrt(abar) for abar in accumulate((1 - beta for beta in betas), operator.mul)]
    first, last = root[0], root[-1]
    abar = [((value - last) * first / (first - last)) ** 2 for value in root]
    return [1 - abar[0]] + [1 - abar[i] / abar[i - 1] for i in range(1, len(betas))]


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_is_the_published_algorithm(name: str) -> None:
    actual = build("schedule", name, zero_terminal_snr=True).betas
    expected = zero_terminal_betas(build("schedule", name).betas.tolist())
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_is_diffusers(name: str) -> None:
    ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    actual = build("schedule", name, zero_terminal_snr=True).betas
    expected = ddim.rescale_zero_terminal_snr(build("schedule", name).betas)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_ends_in_pure_noise_and_nothing_else_is_infinite(name: str) -> None:
    schedule = build("schedule", name, zero_terminal_snr=True)
    one = torch.ones(1, dtype=torch.float64)
    assert float(schedule.betas[-1]) == 1
    assert (float(schedule.alpha(one)), float(schedule.sigma(one)), float(schedule.snr(one))) == (0, 1, 0)
    assert float(schedule.log_snr(one)) == -math.inf
    assert schedule.terminal_kl() == 0
    assert all(table_of(schedule, table).isfinite().all() for table in TABLES)
    assert ((schedule.betas[:-1] > 0) & (schedule.betas[:-1] < 1)).all()
    between = torch.linspace(0.0005, 0.9995, T, dtype=torch.float64)
    for function in ("log_snr", "alpha", "sigma", "snr", "c_noise"):
        assert getattr(schedule, function)(between).isfinite().all(), function
    steps = grid_times(schedule, list(range(1, T + 1))).flatten()
    x_0, x_t = torch.tensor([0.3, -0.8], dtype=torch.float64)
    for s, t in [(steps[:-1], steps[1:]), (steps[:-1], one), (0.9 * between, one), (0.9 * between, between)]:
        mean, variance = schedule.posterior(x_0, x_t, s, t)
        assert mean.isfinite().all()
        assert ((variance >= 0) & (variance <= 1)).all()
        assert schedule.diffuse(x_0, x_t, s, t).isfinite().all()
        for fraction in (0, 0.5, 1):
            assert schedule.log_variance(s, t, fraction).isfinite().all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_end_of_a_zero_terminal_chain_knows_nothing_of_the_image(name: str) -> None:
    """x_T is the noise itself, and the posterior given it is q(x_s | x_0)."""
    schedule = build("schedule", name, zero_terminal_snr=True)
    x_0, eps = torch.tensor([0.9, -0.2, 1.7, -0.4], dtype=torch.float64).view(2, 2, 1, 1, 1)
    s, one = grid_times(schedule, [700, T])[:, None]
    assert torch.equal(schedule.add_noise(x_0, eps, one), eps)
    mean, variance = schedule.posterior(x_0, eps, s, one)
    torch.testing.assert_close(mean, schedule.alpha(s) * x_0)
    torch.testing.assert_close(variance, schedule.sigma(s) ** 2)


@pytest.mark.parametrize("shift", [0.25, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_shift_moves_log_snr_alike_at_every_step(name: str, shift: float) -> None:
    """By -2 log(shift), and what comes of it is again a chain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # less noise leaves signal at the end
        shifted = build("schedule", name, shift=shift)
    steps = grid_times(shifted, list(range(1, T + 1)))
    expected = build("schedule", name).log_snr(steps) - 2 * math.log(shift)
    torch.testing.assert_close(shifted.log_snr(steps), expected, rtol=0, atol=1e-9)
    assert ((shifted.betas > 0) & (shifted.betas < 1)).all()
    chain = torch.tensor(tables_of(shifted.betas.tolist())["snr_table"], dtype=torch.float64)
    torch.testing.assert_close(shifted.snr(steps).flatten(), chain, rtol=1e-8, atol=0)


@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_a_shift_that_is_not_positive_is_refused(shift: float) -> None:
    with pytest.raises(ValueError, match=f"schedule.shift must be positive, got {shift}"):
        LinearSchedule(T, shift=shift)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_between_two_steps_log_snr_is_interpolated(name: str, zero_terminal_snr: bool) -> None:
    """Linearly, but where one end is infinite: there SNR falls as 1 / t, or as (1 - t)^2; continuous at the steps."""
    schedule = build("schedule", name, zero_terminal_snr=zero_terminal_snr)
    table = [math.inf, *(math.log(snr) if snr > 0 else -math.inf for snr in schedule.snr_table.tolist())]
    for part in (0.0, 1e-9, 0.125, 0.5, 0.99, 1.0):
        t = (torch.arange(T, dtype=torch.float64) + part) / T
        expected = []
        for left, right in pairwise(table):
            if part in (0, 1):
                expected.append((left, right)[int(part)])
            elif left == math.inf:
                expected.append(right - math.log(part))
            elif right == -math.inf:
                expected.append(left + 2 * math.log1p(-part))
            else:
                expected.append(left + part * (right - left))
        torch.testing.assert_close(
            schedule.log_snr(t), torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_log_snr_falls_strictly_and_time_inverts_it_everywhere(name: str, zero_terminal_snr: bool) -> None:
    """In the middle of the chain, and as far into its first and its last step as float64 tells times apart."""
    schedule = build("schedule", name, zero_terminal_snr=zero_terminal_snr)
    near = torch.logspace(-8, -3, 200, dtype=torch.float64)  # within the first and the last of 1,000 steps
    t = torch.cat([near, torch.linspace(1 / T, 1 - 1 / T, 7_777, dtype=torch.float64)[1:-1], 1 - near.flip(0)])
    log_snr = schedule.log_snr(t)
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close(schedule.time(log_snr), t, rtol=0, atol=1e-9)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.equal(schedule.time(schedule.log_snr(ends)), ends)
    if zero_terminal_snr:
        assert float(schedule.log_snr(1 - near[:1])) < float(schedule.log_snr(1 - near[-1:])) - 20


@pytest.mark.parametrize("name", SCHEDULES)
def test_between_two_steps_alpha_and_sigma_follow_log_snr(name: str) -> None:
    schedule = build("schedule", name)
    t = torch.linspace(0, 1, 3_333, dtype=torch.float64)[1:]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-14, atol=0)
    torch.testing.assert_close(2 * (alpha / sigma).log(), schedule.log_snr(t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(schedule.snr(t), (alpha / sigma) ** 2, rtol=1e-10, atol=0)


def test_between_two_steps_the_network_receives_a_number_between() -> None:
    schedule = build("schedule", "linear")
    t = torch.tensor([0.0, 0.0004, 0.001, 0.00125, 0.5, 0.50075, 0.99925, 1.0], dtype=torch.float64)
    expected = torch.tensor([0, 0, 0, 0.25, 499, 499.75, 998.25, 999], dtype=torch.float64)
    torch.testing.assert_close(schedule.c_noise(t), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 5, 300])
@pytest.mark.parametrize("name", SCHEDULES)
def test_markov_steps_compose_to_the_closed_form(name: str, steps: int) -> None:
    """Exactly: each step's noise is 1 in one image and 0 in the others, so that variances add over the images."""
    schedule = build("schedule", name)
    x_0 = 0.7
    x = torch.full((steps + 1, 1, 1, 1), x_0, dtype=torch.float64)
    for i in range(1, steps + 1):
        eps = torch.zeros_like(x)
        eps[i] = 1
        x = schedule.step_noise(x, grid_times(schedule, [i]), eps)
    t = grid_times(schedule, [steps])
    clean = schedule.add_noise(torch.full_like(t, x_0), torch.zeros_like(t), t)
    noise = schedule.add_noise(torch.zeros_like(t), torch.ones_like(t), t)
    torch.testing.assert_close(x[:1], clean, rtol=1e-12, atol=0)
    torch.testing.assert_close((x[1:] - x[:1]).square().sum(), noise.square().squeeze(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_diffusing_by_one_step_is_a_markov_step(name: str, zero_terminal_snr: bool) -> None:
    schedule = build("schedule", name, zero_terminal_snr=zero_terminal_snr)
    s, t = grid_times(schedule, list(range(T))), grid_times(schedule, list(range(1, T + 1)))
    x, eps = torch.randn(2, T, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(schedule.diffuse(x, eps, s, t), schedule.step_noise(x, t, eps), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_markov_steps_draw_their_own_noise(name: str) -> None:
    """40 steps of 20,000 pixels: mean and variance within 5 standard errors of add_noise's."""
    torch.manual_seed(1)
    schedule, num, steps = build("schedule", name), 20_000, 40
    x = torch.full((num, 1, 1, 1), 0.7, dtype=torch.float64)
    for i in range(1, steps + 1):
        x = schedule.step_noise(x, grid_times(schedule, [i]))
    t = grid_times(schedule, [steps])
    closed = schedule.add_noise(torch.full_like(x, 0.7), torch.randn_like(x), t)
    sigma = float(schedule.sigma(t))
    for draws in (x, closed):
        assert abs(float(draws.mean()) - 0.7 * float(schedule.alpha(t))) < 5 * sigma / math.sqrt(num)
        assert abs(float(draws.var()) / sigma**2 - 1) < 5 * math.sqrt(2 / num)


def bayes(schedule: DiscreteSchedule, x_0: float, x_t: float, s: int, t: int) -> tuple[float, float]:
    """Mean and variance of q(x_s | x_t, x_0) as the product of q(x_t | x_s) and q(x_s | x_0), each from the betas."""
    betas = schedule.betas.tolist()
    alpha, noise, ratio, spread = 1.0, 0.0, 1.0, 0.0  # of x_s given x_0, of x_t given x_s; `noise` a variance
    for i, beta in enumerate(betas[:t], start=1):
        if i <= s:
            alpha, noise = alpha * math.sqrt(1 - beta), (1 - beta) * noise + beta
        else:
            ratio, spread = ratio * math.sqrt(1 - beta), (1 - beta) * spread + beta
    if s == 0:
        return x_0, 0.0
    precision = 1 / noise + ratio**2 / spread
    return (alpha * x_0 / noise + ratio * x_t / spread) / precision, 1 / precision


@pytest.mark.parametrize("name", SCHEDULES)
def test_posterior_is_bayes_rule(name: str) -> None:
    schedule, random = build("schedule", name), Random(2)
    for s, t in some_steps(20):
        x_0, x_t = random.uniform(-1, 1), random.gauss(0, 1)
        mean, variance = schedule.posterior(
            *torch.tensor([x_0, x_t], dtype=torch.float64).view(2, 1, 1, 1, 1), *grid_times(schedule, [s, t])[:, None]
        )
        expected_mean, expected_variance = bayes(schedule, x_0, x_t, s, t)
        assert float(mean) == pytest.approx(expected_mean, rel=1e-9, abs=1e-12), (s, t)
        assert float(variance) == pytest.approx(expected_variance, rel=1e-9, abs=1e-15), (s, t)


@pytest.mark.parametrize(("s", "t"), [(200, 201), (100, 400), (500, 1000)])
def test_posterior_is_the_normalised_product_of_densities(s: int, t: int) -> None:
    """By summing q(x_t | x_s) q(x_s | x_0) over a grid of x_s; the sum of so smooth a function is exact to 1e-9."""
    schedule = build("schedule", "linear")
    x_0, x_t = -0.3, 0.8
    alpha_s, alpha_t = (float(schedule.alpha(time)) for time in grid_times(schedule, [s, t]))
    sigma_s, sigma_t = (float(schedule.sigma(time)) for time in grid_times(schedule, [s, t]))
    ratio = alpha_t / alpha_s
    x_s = np.linspace(-12, 12, 400_001)
    log_density = -((x_s - alpha_s * x_0) ** 2) / sigma_s**2 / 2
    log_density -= (x_t - ratio * x_s) ** 2 / (sigma_t**2 - ratio**2 * sigma_s**2) / 2
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean, variance = schedule.posterior(
        *torch.tensor([x_0, x_t], dtype=torch.float64).view(2, 1, 1, 1, 1), *grid_times(schedule, [s, t])[:, None]
    )
    assert float(mean) == pytest.approx((density * x_s).sum(), rel=1e-8)
    assert float(variance) == pytest.approx((density * (x_s - float(mean)) ** 2).sum(), rel=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_posteriors_compose_over_a_chain(name: str) -> None:
    """Walking t -> ... -> r through any steps between, given x_0, is the posterior of r given t."""
    schedule = build("schedule", name)
    chain = [930, 929, 700, 400, 399, 150, 60]
    x_t = torch.tensor([-1.2, 0.9], dtype=torch.float64).view(2, 1, 1, 1)
    x_0, zero, one = (torch.full_like(x_t, value) for value in (0.4, 0.0, 1.0))
    mean, variance = x_t, zero
    for t, s in pairwise(grid_times(schedule, chain)):
        slope = schedule.posterior(zero, one, s, t)[0]
        mean, added = schedule.posterior(x_0, mean, s, t)
        variance = slope**2 * variance + added
    first, last = grid_times(schedule, [chain[0], chain[-1]])
    direct_mean, direct_variance = schedule.posterior(x_0, x_t, last, first)
    torch.testing.assert_close(mean, direct_mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(mean[1] - mean[0], direct_mean[1] - direct_mean[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(variance[0], direct_variance.flatten()[0].view(1, 1, 1), rtol=1e-9, atol=0)


def test_the_posterior_is_known_where_the_signal_is_below_the_least_float64() -> None:
    schedule, x = LinearSchedule(num_timesteps=100_000), torch.ones((), dtype=torch.float64)
    s, t = torch.tensor([99_999, 100_000], dtype=torch.float64) / 100_000
    mean, variance = schedule.posterior(x, x, s, t)
    assert schedule.alpha(t) == 0
    torch.testing.assert_close(mean, schedule.alphas[-1].sqrt() * x)
    torch.testing.assert_close(variance, schedule.betas[-1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_step_posterior_reads_the_tables(name: str) -> None:
    schedule = build("schedule", name)
    t = grid_times(schedule, list(range(1, T + 1)))
    s = grid_times(schedule, list(range(T)))
    x_0, x_t = torch.randn(2, T, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, variance = schedule.posterior(x_0, x_t, s, t)
    tables = {
        key: torch.tensor(table, dtype=torch.float64) for key, table in tables_of(schedule.betas.tolist()).items()
    }
    expected = tables["posterior_mean_coef_x_0"] * x_0.flatten() + tables["posterior_mean_coef_x_t"] * x_t.flatten()
    torch.testing.assert_close(mean.flatten(), expected, rtol=1e-9, atol=1e-12)
    for variances in (schedule.posterior_variance, tables["posterior_variance"]):
        torch.testing.assert_close(variance.flatten(), variances, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_timesteps", [7, 1000, 4000])
def test_times_on_the_grid_are_exact(num_timesteps: int, dtype: torch.dtype) -> None:
    schedule, steps = CosineSchedule(num_timesteps), torch.arange(num_timesteps + 1)
    t = (steps.double() / num_timesteps).to(dtype)
    assert torch.equal(schedule.index(t), steps)
    assert schedule.snap(t).dtype == dtype
    assert torch.equal(schedule.snap(t), t)
    assert torch.equal(schedule.index(schedule.snap(t)), steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_timesteps", [7, 1000, 4000])
def test_times_between_steps_go_up_to_the_next(num_timesteps: int, dtype: torch.dtype) -> None:
    schedule, steps = CosineSchedule(num_timesteps), torch.arange(1, num_timesteps + 1)
    for part in (0.03, 0.5, 0.97):
        t = ((steps - part) / num_timesteps).to(dtype)
        assert torch.equal(schedule.index(t), steps)
        assert torch.equal(schedule.index(schedule.snap(t)), steps)


@pytest.mark.parametrize("num_timesteps", [7, 100, 1000, 4000])
def test_sampling_times_are_evenly_spread_steps(num_timesteps: int) -> None:
    schedule = CosineSchedule(num_timesteps)
    divisors = [n for n in range(1, num_timesteps + 1) if num_timesteps % n == 0]
    for num_steps in sorted({*divisors, *range(1, num_timesteps + 1, max(1, num_timesteps // 90)), num_timesteps - 1}):
        times = spaced_times(schedule, num_steps)
        steps = schedule.index(times)
        assert (float(times[0]), float(times[-1]), len(times)) == (1, 0, num_steps + 1)
        shortest, longest = num_timesteps // num_steps, -(-num_timesteps // num_steps)
        jumps = set((-steps.diff()).tolist())
        assert jumps <= {shortest, longest}, f"{num_steps} steps of {num_timesteps} jump by {jumps}"
    assert torch.equal(spaced_times(schedule), spaced_times(schedule, num_timesteps))


@pytest.mark.parametrize("num_steps", [0, -1, 8])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"cannot take {num_steps} sampling steps: num_steps must be between 1 and 7"):
        spaced_times(CosineSchedule(7), num_steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_time_inverts_log_snr(name: str, dtype: torch.dtype) -> None:
    schedule, steps = build("schedule", name), torch.arange(T + 1)
    t = (steps.double() / T).to(dtype)
    assert torch.equal(schedule.index(schedule.time(schedule.log_snr(t))), steps)


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_between_two_steps_lies_between_and_stays_in_range(name: str) -> None:
    schedule = build("schedule", name)
    log_snr = schedule.log_snr(grid_times(schedule, list(range(1, T + 1))).flatten())
    between = (log_snr[1:] + log_snr[:-1]) / 2
    middles = (torch.arange(1, T, dtype=torch.float64) + 0.5) / T
    torch.testing.assert_close(schedule.time(between), middles, rtol=0, atol=1e-12)
    ends = torch.tensor([math.inf, float(log_snr[0]) + 100, float(log_snr[-1]) - 100, -math.inf], dtype=torch.float64)
    torch.testing.assert_close(
        schedule.time(ends), torch.tensor([0, math.exp(-100) / T, 1, 1], dtype=torch.float64), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_terminal_kl_matches_its_closed_form_and_a_numeric_integral(name: str) -> None:
    schedule = build("schedule", name)
    abar, actual = math.prod(1 - beta for beta in schedule.betas.tolist()), schedule.terminal_kl()
    assert actual == pytest.approx(-math.log1p(-abar) / 2, rel=1e-6, abs=1e-15)
    x = np.linspace(-12, 12, 20_001)
    log_q = -((x - math.sqrt(abar)) ** 2) / (1 - abar) / 2 - math.log1p(-abar) / 2
    q = np.exp(log_q) / math.sqrt(2 * math.pi)
    numeric = float((q * (log_q + x**2 / 2)).sum() * (x[1] - x[0]))
    assert actual == pytest.approx(numeric, rel=1e-6, abs=1e-14)


def test_a_schedule_that_ends_far_from_noise_warns() -> None:
    with pytest.warns(UserWarning, match=r"LinearSchedule with 100 steps ends far from noise.*zero_terminal_snr=true"):
        LinearSchedule(100)


def test_stable_diffusion_s_betas_warn_until_their_end_is_noise() -> None:
    """Their abar_T, 0.00466, is the published one (Lin et al. 2023, table 1: sqrt(abar_T) = 0.068265)."""
    with pytest.warns(UserWarning, match=r"6.8% of the signal left"):
        schedule = ScaledLinearSchedule(T, 0.00085, 0.012)
    assert float(schedule.abar[-1]) == pytest.approx(0.0046600985130772404, rel=1e-11)
    assert float(schedule.abar[-1].sqrt()) == pytest.approx(0.068265, abs=5e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ScaledLinearSchedule(T, 0.00085, 0.012, zero_terminal_snr=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_schedules_do_not_warn(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("schedule", name)


@pytest.mark.parametrize(
    "betas",
    [
        torch.tensor([0.1, 0.0, 0.2]),
        torch.tensor([0.1, 1.0]),
        torch.tensor([-0.1, 0.5]),
        torch.tensor([0.1, math.nan]),
        torch.tensor([]),
        torch.full((2, 2), 0.5),
        torch.tensor(0.5),
    ],
    ids=["zero", "one", "negative", "nan", "empty", "matrix", "scalar"],
)
def test_bad_betas_are_refused(betas: Tensor) -> None:
    with pytest.raises(ValueError, match="beta"):
        DiscreteSchedule(betas)


@pytest.mark.parametrize("schedule", [LinearSchedule, QuadraticSchedule, ScaledLinearSchedule, SigmoidSchedule])
def test_betas_out_of_range_name_the_settings(schedule: type[LinearSchedule]) -> None:
    with pytest.raises(ValueError, match="check beta_min, beta_max and num_timesteps"):
        schedule(T, 1e-4, 1.5)


@pytest.mark.parametrize(("clip_min", "clip_max"), [(0.0, 0.9), (-0.1, 0.9), (0.5, 0.5), (0.6, 0.5), (1e-4, 1.0)])
def test_bad_cosine_bounds_are_refused(clip_min: float, clip_max: float) -> None:
    with pytest.raises(ValueError, match=f"clip_min={clip_min}, clip_max={clip_max}"):
        CosineSchedule(T, clip_min=clip_min, clip_max=clip_max)


def test_cosine_can_be_clipped_as_improved_ddpm_does() -> None:
    """To [0, 0.999], with the bounds that its docstring names; the default's lower bound reaches 13 of 1,000 steps."""
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    published = [min(1 - f[t] / f[t - 1], 0.999) for t in range(1, T + 1)]
    betas = CosineSchedule(T, clip_min=1e-9, clip_max=0.999).betas
    np.testing.assert_allclose(betas.numpy(), published, rtol=1e-11)
    default = CosineSchedule(T).betas
    assert (int((default == 1e-4).sum()), float(default.max())) == (13, 0.9999)


def test_a_negative_cosine_offset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"s=-0.01"):
        CosineSchedule(T, s=-0.01)


@pytest.mark.parametrize(("s", "clip_max"), [(-0.1, 0.999), (1.0, 0.999), (1e-4, 0.0), (1e-4, 1.0)])
def test_bad_sqrt_bounds_are_refused(s: float, clip_max: float) -> None:
    with pytest.raises(ValueError, match=f"s={s}, clip_max={clip_max}"):
        SqrtSchedule(T, s=s, clip_max=clip_max)


def test_a_square_root_that_reaches_1_early_continues_with_the_largest_beta() -> None:
    schedule = SqrtSchedule(10, s=0.3)
    assert schedule.betas[-3:].tolist() == [0.999] * 3
    assert (schedule.betas[:-4] < 0.9).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_never_follow_a_change_of_dtype(name: str, dtype: torch.dtype) -> None:
    schedule = build("schedule", name)
    names = ("betas", "log_abar", "log_snr_steps")
    before = [getattr(schedule, table).clone() for table in names]
    parent = nn.ModuleList([nn.Linear(2, 2), schedule]).to(dtype)
    if dtype == torch.float16:
        parent = parent.half()
    assert next(parent.parameters()).dtype == dtype
    for table, value in zip(names, before, strict=True):
        assert getattr(schedule, table).dtype == torch.float64
        assert torch.equal(getattr(schedule, table), value)
    assert all(table_of(schedule, table).dtype == torch.float64 for table in TABLES)


def test_tables_follow_a_change_of_device_and_stay_out_of_checkpoints() -> None:
    parent = nn.ModuleList([build("schedule", "linear")])
    assert not parent.state_dict()
    parent.to("meta", torch.bfloat16)
    assert {(buffer.device.type, buffer.dtype) for buffer in parent.buffers()} == {("meta", torch.float64)}
