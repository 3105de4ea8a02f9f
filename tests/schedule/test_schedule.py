"""Every schedule, with random settings and times, against what any forward process obeys; the continuous ones against
their papers."""

import math
import random
import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from scipy.integrate import quad
from torch import Tensor

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.parameterization import EDMParameterization
from diffusion_lit.schedule import (
    SPACINGS,
    CosineContinuousSchedule,
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    LinearSchedule,
    Schedule,
    VPSchedule,
    spaced_times,
)
from tests.analytic import build, members

SCHEDULES = members("schedule")
SCALED = ("velocity", "edm")
"""The parameterizations whose networks see something else than unit variance of data of unit variance."""
CONTINUOUS = [name for name in SCHEDULES if name not in members("schedule", DiscreteSchedule)]
OF_UNIT_VARIANCE = [build("parameterization", name) for name in members("parameterization") if name not in SCALED]
NUM_EXAMPLES = 10

SETTINGS: dict[str, tuple[float, float]] = {
    "num_timesteps": (2, 60),
    "s": (0.0, 0.02),
    "clip_min": (1e-5, 1e-3),
    "clip_max": (0.9, 0.9999),
    "sigma_min": (1e-3, 0.1),
    "sigma_max": (5.0, 200.0),
    "rho": (1.0, 10.0),
    "shift": (0.2, 8.0),
    "log_snr_min": (-20.0, -4.0),
    "zero_terminal_snr": (False, True),
}
"""What a setting may be, from the least to the most; one that is not named here keeps the value of its yaml."""
RATES: dict[bool, dict[str, tuple[float, float]]] = {
    True: {"beta_min": (1e-4, 0.02), "beta_max": (0.05, 0.6)},  # of the steps of a chain
    False: {"beta_min": (0.01, 2.0), "beta_max": (5.0, 25.0)},  # per unit of time
}


@cache
def described(name: str) -> tuple[type[Schedule], dict[str, Any]]:
    """The class and the settings of conf/schedule/NAME.yaml."""
    config: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / "schedule" / f"{name}.yaml"))
    return get_class(config.pop("_target_")), config


def make(name: str, **overrides: object) -> Schedule:
    """The schedule `name`, whether or not it ends in noise."""
    schedule, config = described(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return schedule(**config | overrides)


class Draws(random.Random):
    """Random numbers that are at the ends of what they may be more often than by chance."""

    def number(self, least: float, most: float) -> float:
        """Of the type of the ends; one of the two in 40 % of the draws."""
        if isinstance(least, bool) or self.random() < 0.4:
            return self.choice([least, most])
        return self.randint(least, int(most)) if isinstance(least, int) else self.uniform(least, most)

    def moments(self, num: int, most: int = 10_000) -> Tensor:
        """`num` times from late to early, at least 1e-4 apart; steps of a chain and t = 1 are among them."""
        numbers: set[float] = set()
        while len(numbers) < num:
            numbers.add(self.number(1, most))
        return torch.tensor(sorted(numbers, reverse=True), dtype=torch.float64) / 10_000


@cache
def examples(name: str) -> list[tuple[dict[str, float], Schedule]]:
    """The schedule `name` with random settings, and with the least and the most of each."""
    draws, ranges = Draws(name), SETTINGS | RATES[name not in CONTINUOUS]
    mine = {key: ranges[key] for key in described(name)[1] if key in ranges}
    chosen = [{key: ends[i] for key, ends in mine.items()} for i in (0, 1)]
    chosen += [{key: draws.number(*ends) for key, ends in mine.items()} for _ in range(NUM_EXAMPLES - 2)]
    return [(settings, make(name, **settings)) for settings in chosen]


def of_any_settings(test: Callable[[Schedule, Draws], None]) -> Callable[[str], None]:
    """A test of each member of the group, with all of its examples; what fails says with which settings."""

    @pytest.mark.parametrize("name", SCHEDULES)
    def tests(name: str) -> None:
        draws = Draws(f"{name} {test.__name__}")
        for settings, schedule in examples(name):
            try:
                test(schedule, draws)
            except BaseException as error:
                error.add_note(f"with {settings}")
                raise

    tests.__doc__ = test.__doc__
    return tests


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def posterior(schedule: Schedule, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q(x_s | x_t, x_0) = N(slope x_t + offset x_0, variance) as (slope, offset, variance)."""
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    slope, variance = schedule.posterior(zero, one, s, t)
    return slope, schedule.posterior(one, zero, s, t)[0], variance


def transition(schedule: Schedule, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """q(x_t | x_s) = N(ratio x_s, variance) as (ratio, variance)."""
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    return schedule.diffuse(one, zero, s, t), schedule.diffuse(zero, one, s, t) ** 2


def check(actual: Tensor, expected: Tensor) -> None:
    """Equal to a millionth: near the data, log SNR is about 20 and steps of it about 1e-3, which cancels 4 digits."""
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-10)


@of_any_settings
def test_log_snr_falls_from_infinity(schedule: Schedule, draw: Draws) -> None:
    times = draw.moments(8).flip(0)
    assert (schedule.log_snr(times).diff() < 0).all()
    assert (schedule.alpha(times).diff() <= 0).all()
    assert (schedule.sigma(times).diff() >= 0).all()
    start = time(0)
    assert (float(schedule.alpha(start)), float(schedule.sigma(start))) == (1, 0)
    assert float(schedule.log_snr(start)) == math.inf


@of_any_settings
def test_alpha_sigma_and_snr_are_those_of_log_snr(schedule: Schedule, draw: Draws) -> None:
    t = draw.moments(8, 9_999)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(2 * (alpha.log() - sigma.log()), schedule.log_snr(t), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(schedule.snr(t), (alpha / sigma) ** 2, rtol=1e-10, atol=0)


@of_any_settings
def test_the_path_is_a_circle_or_a_straight_line(schedule: Schedule, draw: Draws) -> None:
    t = draw.moments(8)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if schedule.variance_preserving:
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-14, atol=0)
    else:  # (1, 0), where it starts, and any two points of it
        across = (alpha[:-1] - 1) * sigma[1:] - (alpha[1:] - 1) * sigma[:-1]
        torch.testing.assert_close(across, torch.zeros_like(across), rtol=0, atol=1e-14)


@of_any_settings
def test_time_inverts_log_snr(schedule: Schedule, draw: Draws) -> None:
    t = torch.tensor([0.0, *(draw.number(1e-6, 1.0) for _ in range(8)), 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, rtol=0, atol=1e-9)
    most, least = schedule.log_snr(torch.tensor([1e-4, 0.999], dtype=torch.float64)).tolist()
    log_snr = torch.tensor([draw.number(least, most) for _ in range(8)], dtype=torch.float64)
    torch.testing.assert_close(schedule.log_snr(schedule.time(log_snr)), log_snr, rtol=1e-9, atol=1e-9)


@of_any_settings
def test_times_in_float32_give_float64_s_values_rounded(schedule: Schedule, draw: Draws) -> None:
    t = draw.moments(8, 9_999).float()
    for function in (schedule.alpha, schedule.sigma, schedule.snr, schedule.c_noise):
        assert function(t).dtype == torch.float32
        torch.testing.assert_close(function(t), function(t.double()).float(), rtol=1e-4, atol=1e-6)
    assert schedule.log_snr(t).dtype == schedule.time(t).dtype == torch.float64
    # t T for a step of a chain is that step in either precision; elsewhere the values are of the very same time.
    torch.testing.assert_close(schedule.log_snr(t), schedule.log_snr(t.double()), rtol=1e-4, atol=1e-4)


@of_any_settings
def test_posteriors_compose_over_a_chain(schedule: Schedule, draw: Draws) -> None:
    """Walking down any times given x_0 is the posterior of the last given the first."""
    times = draw.moments(5)
    if draw.random() < 0.5:
        times = torch.cat([times, torch.zeros_like(times[:1])])
    slope, offset, variance = time(1), time(0), time(0)
    for by, on, added in zip(*posterior(schedule, times[1:], times[:-1]), strict=True):
        slope, offset, variance = by * slope, by * offset + on, by**2 * variance + added
    direct = posterior(schedule, times[-1], times[0])
    scale = schedule.sigma(times[-1]) ** 2 if times[-1] > 0 else 1
    check(slope / direct[0] if direct[0] > 0 else slope, (direct[0] > 0).double())
    check(offset, direct[1])
    check(variance / scale, direct[2] / scale)


@of_any_settings
def test_the_posterior_averages_to_the_marginal(schedule: Schedule, draw: Draws) -> None:
    """Over x_t ~ q(x_t | x_0) its mean and variance are those of q(x_s | x_0)."""
    (t, s) = draw.moments(2)
    slope, offset, variance = posterior(schedule, s, t)
    check(slope * schedule.alpha(t) + offset, schedule.alpha(s))
    check((slope**2 * schedule.sigma(t) ** 2 + variance) / schedule.sigma(s) ** 2, time(1))


@of_any_settings
def test_the_posterior_is_bayes_rule(schedule: Schedule, draw: Draws) -> None:
    """The product of the Gaussians q(x_t | x_s) and q(x_s | x_0), by their precisions."""
    (t, s) = draw.moments(2)
    slope, offset, variance = posterior(schedule, s, t)
    ratio, spread = transition(schedule, s, t)
    alpha, noise = schedule.alpha(s), schedule.sigma(s) ** 2
    precision = 1 / noise + ratio**2 / spread
    check(variance * precision, time(1))
    check(offset, alpha / noise / precision)
    check(slope, ratio / spread / precision)


@of_any_settings
def test_diffusing_composes_to_adding_noise(schedule: Schedule, draw: Draws) -> None:
    times = draw.moments(4).flip(0)
    times = torch.cat([torch.zeros_like(times[:1]), times])
    ratio, variance = time(1), time(0)
    for by, added in zip(*transition(schedule, times[:-1], times[1:]), strict=True):
        ratio, variance = by * ratio, by**2 * variance + added
    check(ratio, schedule.add_noise(time(1), time(0), times[-1]))
    check(variance / schedule.add_noise(time(0), time(1), times[-1]) ** 2, time(1))


@of_any_settings
def test_denoised_fraction_is_a_share_of_snr(schedule: Schedule, draw: Draws) -> None:
    (t, s) = draw.moments(2)
    fraction = schedule.denoised_fraction(s, t)
    assert 0 < float(fraction) <= 1
    check(fraction, 1 - schedule.snr(t) / schedule.snr(s))
    assert float(schedule.denoised_fraction(time(0), t)) == 1
    assert float(schedule.denoised_fraction(s, s)) == 0
    for low in (torch.float32, torch.bfloat16):
        assert 0 <= float(schedule.denoised_fraction(s.to(low), t.to(low))) <= 1 or s.to(low) == t.to(low) == 1


@of_any_settings
def test_log_variance_lies_between_the_small_and_the_large(schedule: Schedule, draw: Draws) -> None:
    (t, s) = draw.moments(2)
    small, large = posterior(schedule, s, t)[2], schedule.diffuse(time(0), time(1), s, t) ** 2
    check(schedule.log_variance(s, t, 0), small.log())
    check(schedule.log_variance(s, t, 1), large.log())
    fraction = draw.number(0.0, 1.0)
    check(schedule.log_variance(s, t, fraction), (1 - fraction) * small.log() + fraction * large.log())


@of_any_settings
def test_the_step_to_the_data_has_the_small_variance_of_the_step_before(schedule: Schedule, draw: Draws) -> None:
    """Improved DDPM's clipping of the first of a chain's log variances, for any step."""
    (t,) = draw.moments(1, 9_999)
    small = posterior(schedule, t, (2 * t).clamp(max=1))[2]
    check(schedule.log_variance(time(0), t, 0), small.log())
    check(schedule.log_variance(time(0), t, 1), 2 * schedule.sigma(t).log())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_single_step_from_noise_to_data_has_the_variance_of_the_noise(name: str) -> None:
    """c sigma_1^2 with c = 1, small or large: there is no step before it to take a smaller one from."""
    schedule = build("schedule", name)
    expected = 2 * schedule.sigma(time(1)).log()
    for fraction in (0, 0.3, 1):
        torch.testing.assert_close(schedule.log_variance(time(0), time(1), fraction), expected, rtol=1e-12, atol=1e-15)


@of_any_settings
def test_networks_see_unit_variance(schedule: Schedule, draw: Draws) -> None:
    """Of data of unit variance, or of EDM's sigma_data; velocity keeps to the scale alpha + sigma = 1."""
    t = draw.moments(6)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    spread = draw.number(0.05, 3.0)
    for member, std in [*((member, 1.0) for member in OF_UNIT_VARIANCE), (EDMParameterization(spread), spread)]:
        variance = member(alpha, sigma).c_in ** 2 * (alpha**2 * std**2 + sigma**2)
        torch.testing.assert_close(variance, torch.ones_like(t), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if "shift" in described(name)[1]])
def test_shift_divides_the_ratio_of_signal_to_noise(name: str) -> None:
    """alpha / sigma by `shift` at every time (Hoogeboom et al. 2023, eq. 4)."""
    draw, plain = Draws(name), make(name)
    for _ in range(8):
        shift, t = draw.number(*SETTINGS["shift"]), draw.moments(6, 9_999)
        moved = make(name, shift=shift)
        torch.testing.assert_close(moved.log_snr(t), plain.log_snr(t) - 2 * math.log(shift), rtol=0, atol=1e-9)
        ratio = plain.alpha(t) / plain.sigma(t) / shift
        torch.testing.assert_close(moved.alpha(t) / moved.sigma(t), ratio, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", [name for name in CONTINUOUS if "shift" in described(name)[1]])
def test_a_shift_that_is_not_positive_is_refused(name: str) -> None:
    with pytest.raises(Exception, match=r"schedule.shift must be positive, got -1.0"):
        build("schedule", name, shift=-1.0)


@pytest.mark.parametrize(("beta_min", "beta_max"), [(0.1, 20.0), (0.5, 16.0), (9.0, 9.0)])
def test_vp_is_the_integral_of_its_rate(beta_min: float, beta_max: float) -> None:
    """alpha^2 = exp(-int_0^t beta), beta(t) linear (Song et al. 2021, eq. 33), integrated numerically."""
    schedule = VPSchedule(beta_min, beta_max)
    for t in (1e-3, 0.02, 0.3, 0.77, 1.0):
        integral, _ = quad(lambda u: beta_min + u * (beta_max - beta_min), 0, t, epsabs=1e-13)
        assert float(schedule.alpha(time(t))) == pytest.approx(math.exp(-integral / 2), rel=1e-11)
        assert float(schedule.sigma(time(t))) == pytest.approx(math.sqrt(-math.expm1(-integral)), rel=1e-11)


@pytest.mark.parametrize(
    ("name", "setting", "far", "near", "words"),
    [
        ("vp", "beta_max", 0.2, 13.0, r"92.8% of the signal left.*Raise beta_max\."),
        ("edm", "sigma_max", 20.0, 30.0, r"5.0% of the signal left.*Raise sigma_max\."),
        ("cosine_continuous", "log_snr_min", -5.0, -8.0, r"8.2% of the signal left.*or lower log_snr_min\."),
    ],
)
def test_a_continuous_schedule_that_ends_far_from_noise_warns(
    name: str, setting: str, far: float, near: float, words: str
) -> None:
    schedule, config = described(name)
    with pytest.warns(UserWarning, match=f"{schedule.__name__} ends far from noise.*{words}"):
        schedule(**config | {setting: far})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule(**config | {setting: near})


def test_vp_is_the_limit_of_linear_chains() -> None:
    """alpha and sigma of T steps are within 1e-2 at T = 1000, by an error that is inverse to T."""
    vp, errors = VPSchedule(), []
    for num_timesteps in (1000, 2000, 4000):
        chain = LinearSchedule(num_timesteps, vp.beta_min / num_timesteps, (vp.beta_min + vp.slope) / num_timesteps)
        t = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        differences = chain.alpha(t) - vp.alpha(t), chain.sigma(t) - vp.sigma(t)
        errors.append(max(float(difference.abs().max()) for difference in differences))
    assert errors[0] < 1e-2
    assert [after / before for before, after in pairwise(errors)] == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.parametrize(("sigma_min", "sigma_max", "rho"), [(0.002, 80.0, 7.0), (0.01, 30.0, 3.0), (0.1, 25.0, 1.0)])
def test_edm_s_times_are_its_noise_levels(sigma_min: float, sigma_max: float, rho: float) -> None:
    """Karras et al. 2022, eq. 5: uniform spacing of time gives the paper's levels, and 0 after them."""
    schedule = EDMSchedule(sigma_min, sigma_max, rho)
    for n in (2, 18, 40):
        low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        levels = [(high + i / (n - 1) * (low - high)) ** rho for i in range(n)]
        times = spaced_times(schedule, n)
        torch.testing.assert_close(schedule.sigma(times).tolist(), [*levels, 0.0], rtol=1e-10, atol=0)
        assert torch.equal(schedule.alpha(times), torch.ones_like(times))
    near = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma(schedule.t_min * near), sigma_min * near, rtol=1e-10, atol=0)


def test_edm_tells_its_network_a_quarter_of_log_sigma() -> None:
    schedule, t = EDMSchedule(), torch.linspace(0.001, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(schedule.c_noise(t), schedule.sigma(t).log() / 4, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_flow_is_the_straight_path_at_shifted_times(shift: float) -> None:
    """x_t = (1 - u) x_0 + u eps with u = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23); u = t unshifted."""
    schedule, t = FlowSchedule(shift), torch.linspace(0, 1, 101, dtype=torch.float64)
    u = shift * t / (1 + (shift - 1) * t)
    torch.testing.assert_close(schedule.alpha(t), 1 - u, rtol=0, atol=1e-15)
    torch.testing.assert_close(schedule.sigma(t), u, rtol=1e-14, atol=0)
    assert (float(schedule.alpha(time(1))), float(schedule.sigma(time(1)))) == (0, 1)
    torch.testing.assert_close(schedule.c_noise(t), 1000 * u, rtol=1e-14, atol=0)  # the shifted time


@pytest.mark.parametrize(("resolution", "shift"), [(64, 1.0), (256, 4.0)])
def test_continuous_cosine_is_the_published_log_snr(resolution: int, shift: float) -> None:
    """-2 log tan(pi t / 2) + 2 log(64 / resolution) (Hoogeboom et al. 2023, section 3), its end being far away."""
    schedule, t = CosineContinuousSchedule(-30.0, shift), torch.linspace(0.001, 0.999, 333, dtype=torch.float64)
    expected = -2 * torch.tan(math.pi * t / 2).log() + 2 * math.log(64 / resolution)
    torch.testing.assert_close(schedule.log_snr(t), expected, rtol=0, atol=1e-3)  # 2e-7 of the angle is left out


@pytest.mark.filterwarnings("ignore:CosineContinuousSchedule ends far from noise")
@pytest.mark.parametrize("log_snr_min", [-4.0, -15.0, -20.0])
def test_continuous_cosine_ends_at_its_least_log_snr(log_snr_min: float) -> None:
    """And is the paper's up to a stretch of time that puts the end there: angles in proportion to time."""
    for shift in (1.0, 4.0):
        schedule = CosineContinuousSchedule(log_snr_min, shift)
        assert float(schedule.log_snr(time(1))) == pytest.approx(log_snr_min - 2 * math.log(shift), abs=1e-9)
    angle = torch.atan((-CosineContinuousSchedule(log_snr_min).log_snr(torch.arange(1, 9).double() / 8) / 2).exp())
    torch.testing.assert_close(angle / angle[0], torch.arange(1, 9).double(), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPSchedule(0.0, 20.0), "need 0 < beta_min <= beta_max, got beta_min=0.0"),
        (lambda: VPSchedule(3.0, 2.0), "got beta_min=3.0, beta_max=2.0"),
        (lambda: EDMSchedule(0.0), "need 0 < sigma_min < sigma_max"),
        (lambda: EDMSchedule(2.0, 1.0), "got sigma_min=2.0, sigma_max=1.0"),
        (lambda: EDMSchedule(rho=0.5), "rho=0.5"),
        (lambda: CosineContinuousSchedule(-3.0), r"log_snr_min must lie in \[-30, -4\].*got -3.0"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_times_snap_to_no_less_than_the_least(name: str) -> None:
    schedule = build("schedule", name)
    t = torch.tensor([1e-9, 5e-4, 0.001, 0.123456, 1.0], dtype=torch.float64)
    assert schedule.snap(t).tolist() == [schedule.t_min, schedule.t_min, 0.001, 0.123456, 1.0]


def literal_times(schedule: Schedule, spacing: str, n: int) -> list[float]:
    """The formulas of the papers, one time after the other; the noise's ratio to the signal where they count in it."""

    def ratio(t: float) -> float:
        return float(schedule.sigma(time(t)) / schedule.alpha(time(t)))

    least, times = schedule.t_min, []
    for i in range(n):
        share = i / (n - 1)
        if spacing == "uniform":
            times.append(1 - share * (1 - least))
        elif spacing == "trailing":
            times.append(1 - i / n)
        elif spacing == "leading":
            times.append((n - 1 - i) / n + least)
        elif spacing == "quadratic":
            times.append((1 - share * (1 - math.sqrt(least))) ** 2)
        elif spacing == "karras":
            high, low = ratio(1) ** (1 / 7), ratio(least) ** (1 / 7)
            times.append(float(schedule.time(time(-2 * math.log((high + share * (low - high)) ** 7)))))
        else:
            high, low = -2 * math.log(ratio(1)), -2 * math.log(ratio(least))
            times.append(float(schedule.time(time(high + share * (low - high)))))
    return [*times, 0.0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ["vp", "edm", "linear"])
def test_spacings_are_their_formulas(name: str, spacing: str) -> None:
    """On a chain, those that speak of time go up to its next step; within 1e-6 of one they are taken to be at it."""
    schedule = build("schedule", name)
    for n in (2, 7, 20):
        expected = literal_times(schedule, spacing, n)
        if isinstance(schedule, DiscreteSchedule) and spacing not in ("karras", "log_snr"):
            expected = [math.ceil(1000 * t - 1e-6) / 1000 for t in expected]
        torch.testing.assert_close(spaced_times(schedule, n, spacing).tolist(), expected, rtol=0, atol=1e-9)


@of_any_settings
def test_times_go_down_to_the_data(schedule: Schedule, draw: Draws) -> None:
    """Strictly, and from 1 but for `leading`; a refusal says what to do instead."""
    for spacing in SPACINGS:
        n = int(draw.number(1, 70))
        try:
            times = spaced_times(schedule, n, spacing)
        except ValueError as error:
            infinite = spacing in ("karras", "log_snr") and schedule.log_snr(time(1)) == -math.inf
            crowded = schedule.num_timesteps is not None and n > math.isqrt(schedule.num_timesteps)
            assert infinite or crowded, error
            assert any(
                word in str(error)
                for word in ("set sampler.num_steps", "num_steps must be", "sampler.spacing=", "spacing=uniform")
            )
            continue
        assert (len(times), float(times[-1])) == (n + 1, 0)
        assert (times.diff() < 0).all()
        if spacing == "leading":
            assert float(times[0]) == pytest.approx(1 - 1 / n + schedule.t_min, abs=schedule.t_min)
        else:
            assert float(times[0]) == 1
        assert float(times[-2]) >= 0.999 * schedule.t_min


def test_impossible_times_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sampler.spacing must be one of uniform, .*; got 'even'"):
        spaced_times(VPSchedule(), 10, "even")
    with pytest.raises(ValueError, match=r"VPSchedule is continuous.*set sampler.num_steps"):
        spaced_times(VPSchedule())
    for schedule in (FlowSchedule(), CosineSchedule(zero_terminal_snr=True)):
        with pytest.raises(ValueError, match=r"infinite at t = 1.*sampler.spacing=trailing or uniform"):
            spaced_times(schedule, 10, "karras")
    with pytest.raises(ValueError, match="90 steps with spacing=quadratic lie closer than CosineSchedule tells"):
        spaced_times(CosineSchedule(100), 90, "quadratic")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_many_steps_lie_within_time_or_are_refused(name: str, spacing: str) -> None:
    for n in (1, 1000, 1001, 2000):
        try:
            times = spaced_times(make(name), n, spacing)
        except ValueError:
            continue
        assert 0 == times[-1] < times[0] <= 1 and (times.diff() < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_everything_is_in_the_dtype_of_the_times(name: str, dtype: torch.dtype) -> None:
    """But for log SNR and the time of it, whose differences nearly cancel."""
    schedule, (x, y) = make(name), torch.ones(2, 3, 1, 2, 2, dtype=dtype)
    t = torch.tensor([0.2, 0.5, 1.0], dtype=dtype).view(-1, 1, 1, 1)
    s, fraction = t / 2, torch.rand_like(x)
    results = [
        *(getattr(schedule, method)(t) for method in ("alpha", "sigma", "scale", "snr", "c_noise", "snap")),
        schedule.add_noise(x, y, t),
        schedule.diffuse(x, y, s, t),
        *schedule.posterior(x, y, s, t),
        schedule.denoised_fraction(s, t),
        schedule.log_variance(s, t, 0.5),
        schedule.log_variance(s, t, fraction),
    ]
    assert [result.dtype for result in results] == [dtype] * len(results)
    assert schedule.log_snr(t).dtype == schedule.time(schedule.log_snr(t).to(dtype)).dtype == torch.float64
