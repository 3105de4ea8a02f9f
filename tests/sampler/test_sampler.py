"""Every sampler on Gaussian data, where its output's mean and variance and the exact flow are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.parameterization import X0Parameterization
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import (
    DDIMSampler,
    DDPMSampler,
    EulerMaruyamaSampler,
    EulerSampler,
    HeunSampler,
    PredictorCorrectorSampler,
    Sampler,
)
from diffusion_lit.schedule import CosineSchedule, DiscreteSchedule, spaced_times
from tests.analytic import Fake, GaussianDenoiser, Impulses, build, grid_times, members

SCHEDULES = members("schedule", DiscreteSchedule)
SAMPLERS = members("sampler")
VARIANTS = {"ddim eta=0.5": ("ddim", {"eta": 0.5}), **{f"{s} churn=5": (s, {"churn": 5.0}) for s in ("euler", "heun")}}
"""Stochastic versions of members that are deterministic by default."""
TWO_CALLS = ("heun", "predictor_corrector")
"""Members that ask the model at both ends of every step but the last."""
MEAN, STD = 0.3, 0.5


class Recorded(GaussianDenoiser):
    """Remembers the times and conditions that it was asked about."""

    def __init__(self, schedule: DiscreteSchedule, mean: float = MEAN, std: float = STD) -> None:
        super().__init__(schedule, mean, std)
        self.asked: list[tuple[Tensor, Condition]] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        self.asked.append((t, condition))
        return super().forward(x_t, t, condition)


def gaussian(name: str, mean: float = MEAN, std: float = STD) -> GaussianDenoiser:
    return GaussianDenoiser(build("schedule", name), mean, std)


def member(name: str, **overrides: object) -> Sampler:
    """A member of the group, or one of its VARIANTS."""
    name, variant = VARIANTS.get(name, (name, {}))
    return build("sampler", name, **{**variant, **overrides})


def steps_of(schedule: DiscreteSchedule, num_steps: int | None) -> list[int]:
    return [int(step) for step in schedule.index(spaced_times(schedule, num_steps))]


def abar_of(schedule: DiscreteSchedule) -> list[float]:
    """abar_0 = 1 to abar_T, in plain floats from the betas."""
    abar = [1.0]
    for beta in schedule.betas.tolist():
        abar.append(abar[-1] * (1 - beta))
    return abar


def moments_of(sampler: Sampler, denoiser: GaussianDenoiser) -> tuple[float, float]:
    """The exact mean and variance of what `sampler` draws; of the predictor-corrector's, in the limit of many pixels.

    Its Langevin steps depend on norms, which makes it the one member that is not affine in its draws.
    """
    if isinstance(sampler, PredictorCorrectorSampler):
        steps = steps_of(denoiser.schedule, sampler.num_steps)
        return langevin_moments(denoiser, steps, sampler.snr, sampler.num_corrections)
    return impulse_moments(sampler, denoiser)


def impulse_moments(sampler: Sampler, denoiser: GaussianDenoiser) -> tuple[float, float]:
    """The exact mean and variance of what `sampler` draws, which must be affine in its draws."""
    schedule = denoiser.schedule
    assert isinstance(schedule, DiscreteSchedule)
    num_steps = sampler.num_steps or schedule.num_timesteps
    noise = Impulses(num_steps + 1 if sampler.stochastic else 1)
    return Impulses.moments(sampler(denoiser, noise))


def propagated_moments(denoiser: GaussianDenoiser, steps: list[int], eta: float, variance: str) -> tuple[float, float]:
    """The same by carrying mean and variance through each step's affine map, in plain floats from the betas.

    DDPM's step is `eta` = 1: x_s = (sqrt(abar_s) b x_0 + sqrt(abar_t / abar_s) (1 - abar_s) x_t) / (1 - abar_t) +
    noise, with b = 1 - abar_t / abar_s (Ho et al. 2020, eq. 7, for a chain of the steps that are taken).
    """
    abar, mu, tau = abar_of(denoiser.schedule), denoiser.mean, denoiser.std**2
    mean, spread = 0.0, 1 - abar[steps[0]]
    for t, s in pairwise(steps):
        a_t, a_s = abar[t], abar[s]
        gain = math.sqrt(a_t) * tau / (a_t * tau + 1 - a_t)  # E[x_0 | x_t] = shift + gain x_t
        shift = mu - gain * math.sqrt(a_t) * mu
        beta = 1 - a_t / a_s
        small = beta * (1 - a_s) / (1 - a_t)
        if eta == 1:
            on_x_0 = math.sqrt(a_s) * beta / (1 - a_t)
            on_x_t = math.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t)
            added = beta * (s > 0) if variance == "large" else small
        else:
            on_x_t = math.sqrt(1 - a_s - eta**2 * small) / math.sqrt(1 - a_t)
            on_x_0 = math.sqrt(a_s) - on_x_t * math.sqrt(a_t)
            added = eta**2 * small
        slope = on_x_t + on_x_0 * gain
        mean, spread = slope * mean + on_x_0 * shift, slope**2 * spread + added
    return mean, spread


def langevin_moments(denoiser: GaussianDenoiser, steps: list[int], snr: float, corrections: int) -> tuple[float, float]:
    """Mean and variance after Euler-Maruyama steps of the reverse SDE, each but the last followed by Langevin steps.

    With f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2 (Song et al. 2021, eq. 6 and algorithm 5, for score
    x -> -(x - alpha mean) / v of a Gaussian), integrated over the step with sigma in the second term held at its start.
    A Langevin step's size is 2 snr^2 over the score's mean square, to which norms over many pixels come.
    """
    abar, mu, tau = abar_of(denoiser.schedule), denoiser.mean, denoiser.std**2
    mean, spread = 0.0, 1 - abar[steps[0]]
    for t, s in pairwise(steps):
        a_t, a_s = abar[t], abar[s]
        growth = math.log(a_s / a_t) / 2
        rate = (a_s - a_t) + 2 * growth * (1 - a_t)
        v = a_t * tau + 1 - a_t
        slope = 1 + growth - rate / v
        mean = slope * mean + rate / v * math.sqrt(a_t) * mu
        spread = slope**2 * spread + rate * (s > 0)
        for _ in range(corrections if s > 0 else 0):
            v, center = a_s * tau + 1 - a_s, math.sqrt(a_s) * mu
            size = 2 * snr**2 * v**2 / ((mean - center) ** 2 + spread)
            mean, spread = mean - size / v * (mean - center), (1 - size / v) ** 2 * spread + 2 * size
    return mean, spread


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpm_draws_from_the_chain_of_the_steps_it_takes(name: str, variance: str, num_steps: int) -> None:
    """To rounding: alpha and sigma are float32 on the sampler's float32 times."""
    denoiser = gaussian(name)
    expected = propagated_moments(denoiser, steps_of(denoiser.schedule, num_steps), 1, variance)
    actual = impulse_moments(DDPMSampler(num_steps, variance=variance), denoiser)
    assert actual == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_draws_from_the_process_of_its_eta(name: str, eta: float, num_steps: int) -> None:
    denoiser = gaussian(name)
    expected = propagated_moments(denoiser, steps_of(denoiser.schedule, num_steps), eta, "small")
    actual = impulse_moments(DDIMSampler(num_steps, eta=eta), denoiser)
    assert actual == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize("name", SCHEDULES)
def test_euler_maruyama_draws_from_the_discretized_sde(name: str, num_steps: int) -> None:
    denoiser = gaussian(name)
    expected = langevin_moments(denoiser, steps_of(denoiser.schedule, num_steps), snr=0, corrections=0)
    actual = impulse_moments(EulerMaruyamaSampler(num_steps), denoiser)
    assert actual == pytest.approx(expected, rel=2e-5)


def chain_moments(sampler: Sampler, denoiser: GaussianDenoiser) -> tuple[float, float]:
    """The exact mean and variance after all T steps: each step's affine map, all read off at once, then composed."""
    times = spaced_times(denoiser.schedule).view(-1, 1, 1, 1)
    zero, one = torch.zeros_like(times[1:]), torch.ones_like(times[1:])

    def step(x_t: Tensor, noise: Tensor) -> Tensor:
        return sampler.step(sampler.walk(denoiser, noise=lambda: noise), x_t, times[:-1], times[1:]).flatten()

    shift = step(zero, zero)
    maps = torch.stack([shift, step(one, zero) - shift, step(zero, one) - shift])
    mean, variance = 0.0, 1 - abar_of(denoiser.schedule)[-1]
    for offset, slope, spread in maps.T.tolist():
        mean, variance = offset + slope * mean, slope**2 * variance + spread**2
    return mean, variance


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "sampler",
    [DDPMSampler(None, variance="small"), DDPMSampler(None, variance="large"), DDIMSampler(None)],
    ids=["ddpm-small", "ddpm-large", "ddim"],
)
def test_all_steps_together_reproduce_the_data(sampler: Sampler, name: str) -> None:
    """The mean within 2 %, what the start forgets of it where a schedule ends with signal left; the std within 1 %.

    The square-root schedule's first step has a fifth of the noise: its last image is E[x_0 | x_1], whose std is less
    than the data's, and that std it has within 2 %.
    """
    denoiser = gaussian(name)
    mean, variance = chain_moments(sampler, denoiser)
    assert mean == pytest.approx(MEAN, rel=0.02)
    if name == "sqrt":
        abar = abar_of(denoiser.schedule)[1]
        assert math.sqrt(variance) == pytest.approx(
            STD * math.sqrt(abar * STD**2 / (abar * STD**2 + 1 - abar)), rel=0.02
        )
    else:
        assert math.sqrt(variance) == pytest.approx(STD, rel=0.01)


def test_a_walk_of_all_steps_composes_them() -> None:
    denoiser = GaussianDenoiser(build("schedule", "linear", num_timesteps=100, beta_max=0.2), MEAN, STD)
    for sampler in (DDPMSampler(None), DDIMSampler(None)):
        assert impulse_moments(sampler, denoiser) == pytest.approx(chain_moments(sampler, denoiser), rel=2e-5)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "predictor_corrector"])
def test_every_member_reproduces_the_data_in_250_steps(sampler: str) -> None:
    """Mean and standard deviation within 2 %, the bias of 250 steps of DDPM with small variance being 1.5 %.

    `ode` takes as many steps as it needs whatever `num_steps` says, and so is asked for 5.
    """
    num_steps = 5 if sampler == "ode" else 250
    mean, variance = impulse_moments(build("sampler", sampler, num_steps=num_steps, clip=None), gaussian("cosine"))
    assert mean == pytest.approx(MEAN, rel=0.02)
    assert math.sqrt(variance) == pytest.approx(STD, rel=0.02)


def test_predictor_corrector_reproduces_the_data_in_250_steps() -> None:
    """Its exact moments within 2 %, 1.3 % of that from snr = 0.16; its images within 5 standard errors of them."""
    sampler, denoiser = build("sampler", "predictor_corrector", num_steps=250, clip=None), gaussian("cosine")
    mean, variance = moments_of(sampler, denoiser)
    assert mean == pytest.approx(MEAN, rel=0.02)
    assert math.sqrt(variance) == pytest.approx(STD, rel=0.02)
    images = sampler(denoiser, ImageNoise(0, range(3), (1, 64, 64)))
    assert abs(float(images.mean()) - mean) < 5 * math.sqrt(variance / images.numel())
    assert abs(float(images.var()) / variance - 1) < 5 * math.sqrt(2 / images.numel())


@pytest.mark.parametrize("name", [*SAMPLERS, *VARIANTS])
def test_every_member_draws_independent_pixels_from_real_noise(name: str) -> None:
    """9600 pixels: mean and variance within 5 standard errors of the exact ones of this many steps.

    The predictor-corrector's are those of many pixels, from which 480 an image differ by less than 0.1 %.
    """
    denoiser, sampler = gaussian("linear"), member(name, num_steps=4 if name == "ode" else 20, clip=None)
    expected_mean, expected_variance = moments_of(sampler, denoiser)
    images = sampler(denoiser, ImageNoise(0, range(20), (3, 40, 4)))
    num = images.numel()
    assert abs(float(images.mean()) - expected_mean) < 5 * math.sqrt(expected_variance / num)
    assert abs(float(images.var()) / expected_variance - 1) < 5 * math.sqrt(2 / num)
    neighbours = ((images[..., 1:] - expected_mean) * (images[..., :-1] - expected_mean)).mean() / expected_variance
    assert abs(float(neighbours)) < 5 / math.sqrt(num * 3 / 4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_converges_to_the_flow_at_first_order(name: str) -> None:
    """Doubling the steps halves the error; in float64 throughout, the times being exact.

    The square-root schedule is walked down to a tenth of its time, since its first step alone is as long as a tenth.
    """
    denoiser, sampler = gaussian(name), DDIMSampler()
    last = 100 if name == "sqrt" else 0
    x_1 = torch.tensor([-1.5, -0.2, 0.7, 2.0], dtype=torch.float64).view(-1, 1, 1, 1)
    abar = abar_of(denoiser.schedule)
    first_std, last_std = (math.sqrt(a * STD**2 + 1 - a) for a in (abar[-1], abar[last]))
    exact = math.sqrt(abar[last]) * MEAN + last_std / first_std * (x_1 - math.sqrt(abar[-1]) * MEAN)
    numbers, errors = [10, 20, 50, 100], []
    for number in numbers:
        x_t = x_1
        for t, s in pairwise(grid_times(denoiser.schedule, list(range(1000, last - 1, (last - 1000) // number)))):
            x_t = sampler.step(sampler.walk(denoiser), x_t, t, s)
        errors.append(float((x_t - exact).square().mean().sqrt()))
    log_steps = torch.tensor(numbers).double().log()
    log_errors = torch.tensor(errors).double().log()
    slope = ((log_steps - log_steps.mean()) * (log_errors - log_errors.mean())).sum() / (
        (log_steps - log_steps.mean()).square().sum()
    )
    assert float(slope) == pytest.approx(-1, abs=0.25), errors


@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_eta_one_is_ddpm_with_small_variance(name: str, clip: float | None) -> None:
    """Step for step, on the same noise, for neighbours in the chain and for long jumps."""
    denoiser = gaussian(name)
    ddim, ddpm = DDIMSampler(eta=1.0, clip=clip), DDPMSampler(variance="small", clip=clip)
    generator = torch.Generator().manual_seed(1)
    for t, s in ((1000, 999), (1000, 500), (731, 20), (500, 499), (40, 0), (3, 2), (2, 1), (1, 0)):
        x_t, noise = torch.randn(2, 2, 1, 4, 4, generator=generator, dtype=torch.float64)
        times = grid_times(denoiser.schedule, [t, s])[:, None]
        torch.testing.assert_close(
            ddim.step(ddim.walk(denoiser, noise=lambda noise=noise: noise), x_t, *times),
            ddpm.step(ddpm.walk(denoiser, noise=lambda noise=noise: noise), x_t, *times),
            rtol=1e-6,
            atol=1e-9,
        )


def test_large_variance_is_beta_and_small_is_beta_tilde() -> None:
    """The spread of one step of the chain, read off the noise that it adds; the last step adds none."""
    denoiser = gaussian("linear")
    schedule = denoiser.schedule
    x_t = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    zeros, ones = (lambda: torch.zeros_like(x_t)), (lambda: torch.ones_like(x_t))
    for variance, table in (("large", schedule.betas), ("small", schedule.posterior_variance)):
        sampler = DDPMSampler(variance=variance)
        for step in (2, 3, 500, 1000):
            t, s = grid_times(schedule, [step, step - 1])
            with_noise, without = (
                sampler.step(sampler.walk(denoiser, noise=given), x_t, t, s) for given in (ones, zeros)
            )
            added = with_noise - without
            assert float(added) ** 2 == pytest.approx(float(table[step - 1]), rel=1e-9)
        t, s = grid_times(schedule, [1, 0])
        last = sampler.step(sampler.walk(denoiser, noise=ones), x_t, t, s)
        assert torch.equal(last, denoiser(x_t, t).x_0)


@pytest.mark.parametrize("name", [*SAMPLERS, *VARIANTS])
def test_clip_holds_the_estimate_and_so_the_image(name: str) -> None:
    """Data far outside: unclipped it is found, clipped each image ends on the limit exactly.

    Three members end near it instead: the last step of the reverse SDE is Euler's and not the estimate itself, and
    `ode` walks to 1 % of noise, where the clipped estimate of an image can lie below the limit by some of that.
    """
    denoiser, num_steps = gaussian("linear", mean=3.0, std=0.1), 2 if name == "ode" else 20
    free = member(name, num_steps=num_steps, clip=None)(denoiser, ImageNoise(0, range(4), (1, 4, 4)))
    assert abs(float(free.mean()) - 3) < 0.1
    near = name in ("euler_maruyama", "predictor_corrector", "ode")
    for limit in (1.0, 0.5):
        held = member(name, num_steps=num_steps, clip=limit)(denoiser, ImageNoise(0, range(4), (1, 4, 4)))
        expected = torch.full_like(held, limit)
        torch.testing.assert_close(held, expected, rtol=0 if near else 1e-5, atol=0.02 if near else 0)


@pytest.mark.parametrize("sampler", [DDIMSampler(clip=0.5), DDPMSampler(clip=0.5)], ids=["ddim", "ddpm"])
def test_a_clipped_step_uses_the_noise_that_the_clipped_image_leaves(sampler: Sampler) -> None:
    """A step with x_0 clipped is a free step of a model that says the clipped x_0."""

    class Constant(Fake):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
            return torch.full_like(x, self.value)

    schedule = build("schedule", "linear")
    wild, tame = (Denoiser(Constant(value), schedule, X0Parameterization()) for value in (7.0, 0.5))
    x_t, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t, s = grid_times(schedule, [600, 400])
    free = type(sampler)()
    clipped = sampler.step(sampler.walk(wild, noise=lambda: noise), x_t, t, s)
    assert torch.equal(clipped, free.step(free.walk(tame, noise=lambda: noise), x_t, t, s))
    assert not torch.allclose(clipped, free.step(free.walk(wild, noise=lambda: noise), x_t, t, s))


@pytest.mark.parametrize("num_steps", [1, 4, None])
@pytest.mark.parametrize("name", [*SAMPLERS, "ddim eta=0.5"])
def test_the_walk_visits_the_schedules_times_and_reports_each_step(name: str, num_steps: int | None) -> None:
    """Churn asks at later times than these, `ode` at times of its own between them."""
    schedule = CosineSchedule(20)
    denoiser, sampler = Recorded(schedule), member(name, num_steps=num_steps)
    condition = Condition(torch.tensor([4, 2, 0]))
    reported: list[tuple[float, Tensor]] = []
    calls: list[int] = []

    def on_step(s: Tensor, x_s: Tensor) -> None:
        assert s.shape == (3, 1, 1, 1)
        reported.append((float(s[0]), x_s.clone()))
        calls.append(len(denoiser.asked))

    images = sampler(denoiser, ImageNoise(0, range(3), (1, 2, 2)), condition, on_step)
    times = spaced_times(schedule, num_steps).float().tolist()
    assert [s for s, _ in reported] == times[1:]
    assert torch.equal(reported[-1][1], images)
    assert len({x_s.numpy().tobytes() for _, x_s in reported}) == len(reported) == (num_steps or 20)
    assert all(t.shape == (3, 1, 1, 1) for t, _ in denoiser.asked)
    assert all(given is condition for _, given in denoiser.asked)
    for (first, last), t, s in zip(pairwise([0, *calls]), times[:-1], times[1:], strict=True):
        asked = [float(time) for t_asked, _ in denoiser.asked[first:last] for time in t_asked.flatten()]
        if name == "ode":  # no nearer to the data than t_min; to the rounding of float32
            assert max(asked) == pytest.approx(t, abs=1e-6)
            assert min(asked) == pytest.approx(max(s, schedule.t_min), abs=1e-6)
        else:
            assert asked == [t] * 3 + [s] * 3 * (name in TWO_CALLS and s > 0)


@pytest.mark.parametrize("name", [*SAMPLERS, *VARIANTS])
def test_only_stochastic_samplers_use_noise_after_the_start(name: str) -> None:
    """The start is the same, the later draws differ: so do the images of stochastic samplers, and only theirs.

    They draw once a step, the predictor-corrector twice in each but the last.
    """
    sampler = member(name, num_steps=5)
    outputs, calls = [], []
    for seed in (1, 2):
        start, later = ImageNoise(0, range(3), (1, 2, 2)), ImageNoise(seed, range(3), (1, 2, 2))
        used: list[bool] = []

        def noise(start: ImageNoise = start, later: ImageNoise = later, used: list[bool] = used) -> Tensor:
            used.append(True)
            return start() if len(used) == 1 else later()

        outputs.append(sampler(gaussian("linear"), noise))
        calls.append(len(used))
    draws = (10 if name == "predictor_corrector" else 6) if sampler.stochastic else 1
    assert calls == [draws, draws]
    assert torch.equal(*outputs) is not sampler.stochastic


def test_which_samplers_are_stochastic() -> None:
    for stochastic in (
        DDPMSampler(),
        DDIMSampler(eta=0.1),
        EulerSampler(churn=1),
        HeunSampler(churn=1),
        EulerMaruyamaSampler(),
        PredictorCorrectorSampler(),
    ):
        assert stochastic.stochastic
    deterministic = {name for name in SAMPLERS if not build("sampler", name).stochastic}
    assert deterministic >= {"ddim", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "ode"}


@pytest.mark.parametrize("name", [*SAMPLERS, *VARIANTS])
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    sampler, denoiser = member(name, num_steps=6), gaussian("linear")
    together = sampler(denoiser, ImageNoise(0, range(5), (1, 2, 2)))
    apart = torch.cat([sampler(denoiser, ImageNoise(0, part, (1, 2, 2))) for part in ([0, 1], [2], [3, 4])])
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "heun", *VARIANTS, "dpmpp_3m", "unipc"])
def test_images_are_finite_where_the_signal_is_below_the_least_float64(name: str) -> None:
    denoiser = GaussianDenoiser(build("schedule", "linear", num_timesteps=100_000), MEAN, STD)
    images = member(name, num_steps=6)(denoiser, ImageNoise(0, range(2), (1, 2, 2)))
    assert images.isfinite().all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_keeps_no_graph(sampler: str) -> None:
    class Weighted(Fake):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
            return self.weight * x

    denoiser = Denoiser(Weighted(), build("schedule", "linear"), X0Parameterization())
    assert not build("sampler", sampler, num_steps=2)(denoiser, ImageNoise(0, [0], (1, 2, 2))).requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bad_settings_are_refused_before_any_work(sampler: str) -> None:
    kind = type(build("sampler", sampler))
    with pytest.raises(ValueError, match="needs num_steps >= 1, got 0"):
        kind(num_steps=0)
    for clip in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"must be positive, got {clip}"):
            kind(clip=clip)
    with pytest.raises(
        ValueError,
        match="cannot take 1001 sampling steps: num_steps must be between 1 and 1000, the steps of the schedule",
    ):
        kind(num_steps=1001)(gaussian("linear"), ImageNoise(0, [0], (1, 2, 2)))


def test_bad_variances_and_etas_are_refused() -> None:
    with pytest.raises(ValueError, match="variance must be small, large or learned, got 'medium'"):
        DDPMSampler(variance="medium")
    for eta in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"eta must lie in \[0, 1\].*got {eta}"):
            DDIMSampler(eta=eta)


@pytest.mark.parametrize("name", ["linear", "vp", "edm"])
def test_a_correction_is_song_s_of_each_image(name: str) -> None:
    """Song et al. 2021, algorithm 4, literally: noise of +-1 has the norm that it has on average."""
    denoiser, generator, visited = gaussian(name), torch.Generator().manual_seed(0), []
    start, kick = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    z = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64).sign()
    for sampler in (PredictorCorrectorSampler(2, num_corrections=2, snr=0.3), EulerMaruyamaSampler(2)):
        source = iter([start, kick, *z, kick])
        sampler(denoiser, lambda source=source: next(source), on_step=lambda s, x_s: visited.append((s, x_s)))
    (s, corrected), _, (same, x), _ = visited
    assert torch.equal(s, same)
    for noise in z:
        for i in range(len(x)):
            g = denoiser(x[i : i + 1], s[i : i + 1]).score[0]
            e = 2 * (0.3 * noise[i].norm() / g.norm()) ** 2
            x[i] += e * g + (2 * e).sqrt() * noise[i]
    torch.testing.assert_close(corrected, x, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["euler", "heun"])
@pytest.mark.parametrize(
    ("bounds", "churned"),
    [((1.0, 1.0), [0.5]), ((1.0, None), [0.75, 0.5]), ((0.0, 1.0), [0.5, 0.25]), ((1.01, 2.9), []), ((0.4, 0.99), [])],
)
def test_churn_has_both_its_bounds(name: str, bounds: tuple[float, float | None], churned: list[float]) -> None:
    """The flow's sigma / alpha is infinite, 3, exactly 1 and 1/3 at its four times; at the first no noise can be added.

    Each image but the first has noise in one draw only, of which the first is the start: where a step adds none, the
    image comes out as the first does.
    """
    sampler = build("sampler", name, num_steps=4, churn=2.0, churn_min=bounds[0], churn_max=bounds[1])
    images = sampler(gaussian("flow"), Impulses(5)).flatten()
    assert [t for t, image in zip((1, 0.75, 0.5, 0.25), images[2:], strict=True) if image != images[0]] == churned


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*SAMPLERS, *VARIANTS])
def test_images_and_what_the_model_is_asked_are_in_the_dtype_of_the_noise(name: str, dtype: torch.dtype) -> None:
    denoiser = Recorded(build("schedule", "linear"))
    seen = []
    noise = ImageNoise(0, range(2), (1, 2, 2))
    images = member(name, num_steps=4)(denoiser, lambda: noise().to(dtype), on_step=lambda s, x: seen.extend([s, x]))
    assert {tensor.dtype for tensor in [images, *seen, *(t for t, _ in denoiser.asked)]} == {dtype}


@pytest.mark.parametrize("num_corrections", [1, 2])
def test_a_correction_is_as_large_as_the_paper_has_it(num_corrections: int) -> None:
    """Song et al. 2021, algorithm 4, on each image's own norms: e = 2 (snr |z| / |score|)^2, |z|^2 being its mean.

    The step before it is Euler and Maruyama's, from the same noise.
    """
    shape, denoiser = (2, 1, 4, 4), gaussian("cosine")
    draws = torch.randn(9, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    walks: list[list[tuple[Tensor, Tensor]]] = []
    for name, options in (("euler_maruyama", {}), ("predictor_corrector", {"num_corrections": num_corrections})):
        walks.append([])
        sampler = build("sampler", name, num_steps=2, clip=None, **options)
        sampler(denoiser, iter(draws).__next__, on_step=lambda s, x: walks[-1].append((s, x)))
    (s, x), (_, corrected) = walks[0][0], walks[1][0]
    for z in draws[2 : 2 + num_corrections]:
        score = denoiser(x, s).score
        size = 2 * (0.16 * 4 / score.flatten(1).norm(dim=1)).view(-1, 1, 1, 1) ** 2  # 16 pixels: |z| is 4
        x = x + size * score + (2 * size).sqrt() * z
    torch.testing.assert_close(corrected, x, rtol=1e-12, atol=1e-12)
