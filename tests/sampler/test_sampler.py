"""Every sampler on Gaussian data, where its output's mean and variance and the exact flow are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.parameterization import X0Parameterization
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import DDIMSampler, DDPMSampler, Sampler
from diffusion_lit.schedule import CosineSchedule, DiscreteSchedule
from tests.analytic import GaussianDenoiser, Impulses, build, grid_times, members

SCHEDULES = members("schedule", DiscreteSchedule)
SAMPLERS = members("sampler")
MEAN, STD = 0.3, 0.5


class Recorded(GaussianDenoiser):
    """Remembers the times and labels that it was asked about."""

    def __init__(self, schedule: DiscreteSchedule, mean: float = MEAN, std: float = STD) -> None:
        super().__init__(schedule, mean, std)
        self.asked: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        self.asked.append((t, label))
        return super().forward(x_t, t, label)


def gaussian(name: str, mean: float = MEAN, std: float = STD) -> GaussianDenoiser:
    return GaussianDenoiser(build("schedule", name), mean, std)


def steps_of(schedule: DiscreteSchedule, num_steps: int | None) -> list[int]:
    return [int(step) for step in schedule.index(schedule.times(num_steps))]


def impulse_moments(sampler: Sampler, denoiser: GaussianDenoiser) -> tuple[float, float]:
    """The exact mean and variance of what `sampler` draws."""
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
    abar = [1.0]
    for beta in denoiser.schedule.betas.tolist():
        abar.append(abar[-1] * (1 - beta))
    mu, tau = denoiser.mean, denoiser.std**2
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


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpm_draws_from_the_chain_of_the_steps_it_takes(name: str, variance: str, num_steps: int) -> None:
    """To rounding: alpha and sigma are float32 on the sampler's float32 times."""
    denoiser = gaussian(name)
    expected = propagated_moments(denoiser, steps_of(denoiser.schedule, num_steps), 1, variance)
    actual = impulse_moments(DDPMSampler(num_steps, variance), denoiser)
    assert actual == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_draws_from_the_process_of_its_eta(name: str, eta: float, num_steps: int) -> None:
    denoiser = gaussian(name)
    expected = propagated_moments(denoiser, steps_of(denoiser.schedule, num_steps), eta, "small")
    actual = impulse_moments(DDIMSampler(num_steps, eta), denoiser)
    assert actual == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "sampler",
    [DDPMSampler(None, "small"), DDPMSampler(None, "large"), DDIMSampler(None)],
    ids=["ddpm-small", "ddpm-large", "ddim"],
)
def test_all_steps_together_reproduce_the_data(sampler: Sampler, name: str) -> None:
    """The mean within 2 %, what the start forgets of it where a schedule ends with signal left; the std within 1 %."""
    mean, variance = impulse_moments(sampler, gaussian(name))
    assert mean == pytest.approx(MEAN, rel=0.02)
    assert math.sqrt(variance) == pytest.approx(STD, rel=0.01)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_member_reproduces_the_data_in_250_steps(sampler: str) -> None:
    """Mean and standard deviation within 2 %, the bias of 250 steps of DDPM with small variance being 1.5 %."""
    mean, variance = impulse_moments(build("sampler", sampler, num_steps=250, clip=None), gaussian("cosine"))
    assert mean == pytest.approx(MEAN, rel=0.02)
    assert math.sqrt(variance) == pytest.approx(STD, rel=0.02)


@pytest.mark.parametrize("mean", [0.0, 0.3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_member_draws_independent_pixels_from_real_noise(sampler: str, mean: float) -> None:
    """9600 pixels: mean and variance within 5 standard errors of the exact ones of this many steps."""
    denoiser, member = gaussian("linear", mean), build("sampler", sampler, num_steps=20, clip=None)
    expected_mean, expected_variance = impulse_moments(member, denoiser)
    images = member(denoiser, ImageNoise(0, range(200), (3, 4, 4)))
    num = images.numel()
    assert abs(float(images.mean()) - expected_mean) < 5 * math.sqrt(expected_variance / num)
    assert abs(float(images.var()) / expected_variance - 1) < 5 * math.sqrt(2 / num)
    neighbours = ((images[..., 1:] - expected_mean) * (images[..., :-1] - expected_mean)).mean() / expected_variance
    assert abs(float(neighbours)) < 5 / math.sqrt(num * 3 / 4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_converges_to_the_flow_at_first_order(name: str) -> None:
    """Doubling the steps halves the error; in float64 throughout, the times being exact."""
    denoiser = gaussian(name)
    sampler = DDIMSampler()
    x_1 = torch.tensor([-1.5, -0.2, 0.7, 2.0], dtype=torch.float64).view(-1, 1, 1, 1)
    numbers, errors = [10, 20, 40, 50, 100], []
    for number in numbers:
        x_t = x_1
        for t, s in pairwise(grid_times(denoiser.schedule, list(range(1000, -1, -1000 // number)))):
            x_t = sampler.step(denoiser, x_t, t, s)
        errors.append(float((x_t - denoiser.flow(x_1)).square().mean().sqrt()))
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
            ddim.step(denoiser, x_t, *times, noise=noise),
            ddpm.step(denoiser, x_t, *times, noise=noise),
            rtol=1e-6,
            atol=1e-9,
        )


def test_large_variance_is_beta_and_small_is_beta_tilde() -> None:
    """The spread of one step of the chain, read off the noise that it adds; the last step adds none."""
    denoiser = gaussian("linear")
    schedule = denoiser.schedule
    x_t, one = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for variance, table in (("large", schedule.betas), ("small", schedule.posterior_variance)):
        sampler = DDPMSampler(variance=variance)
        for step in (2, 3, 500, 1000):
            t, s = grid_times(schedule, [step, step - 1])
            added = sampler.step(denoiser, x_t, t, s, noise=one) - sampler.step(denoiser, x_t, t, s, noise=0 * one)
            assert float(added) ** 2 == pytest.approx(float(table[step - 1]), rel=1e-9)
        t, s = grid_times(schedule, [1, 0])
        last = sampler.step(denoiser, x_t, t, s, noise=one)
        assert torch.equal(last, denoiser(x_t, t).x_0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clip_holds_the_estimate_and_so_the_image(sampler: str) -> None:
    """Data far outside: unclipped it is found, clipped each image ends on the limit exactly."""
    denoiser = gaussian("linear", mean=3.0, std=0.1)
    free = build("sampler", sampler, num_steps=20, clip=None)(denoiser, ImageNoise(0, range(4), (1, 4, 4)))
    assert abs(float(free.mean()) - 3) < 0.1
    for limit in (1.0, 0.5):
        held = build("sampler", sampler, num_steps=20, clip=limit)(denoiser, ImageNoise(0, range(4), (1, 4, 4)))
        torch.testing.assert_close(held, torch.full_like(held, limit), rtol=1e-5, atol=0)


@pytest.mark.parametrize("sampler", [DDIMSampler(clip=0.5), DDPMSampler(clip=0.5)], ids=["ddim", "ddpm"])
def test_a_clipped_step_uses_the_noise_that_the_clipped_image_leaves(sampler: Sampler) -> None:
    """A step with x_0 clipped is a free step of a model that says the clipped x_0."""

    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
            return torch.full_like(x, self.value)

    schedule = build("schedule", "linear")
    wild, tame = (Denoiser(Constant(value), schedule, X0Parameterization()) for value in (7.0, 0.5))
    x_t, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t, s = grid_times(schedule, [600, 400])
    given = noise if sampler.stochastic else None
    free = type(sampler)()
    assert torch.equal(sampler.step(wild, x_t, t, s, noise=given), free.step(tame, x_t, t, s, noise=given))
    assert not torch.allclose(sampler.step(wild, x_t, t, s, noise=given), free.step(wild, x_t, t, s, noise=given))


@pytest.mark.parametrize("num_steps", [1, 4, None])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_walk_visits_the_schedules_times_and_reports_each_step(sampler: str, num_steps: int | None) -> None:
    schedule = CosineSchedule(20)
    denoiser, member = Recorded(schedule), build("sampler", sampler, num_steps=num_steps)
    label, reported = torch.tensor([4, 2, 0]), []
    member(denoiser, ImageNoise(0, range(3), (1, 2, 2)), label, on_step=lambda: reported.append(len(denoiser.asked)))
    times = schedule.times(num_steps)
    assert len(reported) == len(times) - 1 == (num_steps or 20)
    assert reported == sorted(set(reported))
    visited = list(dict.fromkeys(float(t[0, 0, 0, 0]) for t, _ in denoiser.asked))
    assert [t for t in visited if t > 0] == times[:-1].tolist()
    assert all(t.shape == (3, 1, 1, 1) for t, _ in denoiser.asked)
    assert all(given is label for _, given in denoiser.asked)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "ddim eta=0.5"])
def test_only_stochastic_samplers_use_noise_after_the_start(sampler: str) -> None:
    """The start is the same, the later draws differ: so do the images of stochastic samplers, and only theirs."""
    name, _, eta = sampler.partition(" eta=")
    member = build("sampler", name, num_steps=5, **({"eta": float(eta)} if eta else {}))
    outputs, calls = [], []
    for seed in (1, 2):
        start, later = ImageNoise(0, range(3), (1, 2, 2)), ImageNoise(seed, range(3), (1, 2, 2))
        used: list[bool] = []

        def noise(start: ImageNoise = start, later: ImageNoise = later, used: list[bool] = used) -> Tensor:
            used.append(True)
            return start() if len(used) == 1 else later()

        outputs.append(member(gaussian("linear"), noise))
        calls.append(len(used))
    assert calls == ([6, 6] if member.stochastic else [1, 1])
    assert torch.equal(*outputs) is not member.stochastic


def test_which_samplers_are_stochastic() -> None:
    assert DDPMSampler().stochastic
    assert not DDIMSampler(eta=0.0).stochastic
    assert DDIMSampler(eta=0.1).stochastic


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(sampler: str) -> None:
    member, denoiser = build("sampler", sampler, num_steps=6), gaussian("linear")
    together = member(denoiser, ImageNoise(0, range(5), (1, 2, 2)))
    apart = torch.cat([member(denoiser, ImageNoise(0, part, (1, 2, 2))) for part in ([0, 1], [2], [3, 4])])
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_keeps_no_graph(sampler: str) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
            return self.weight * x

    denoiser = Denoiser(Weighted(), build("schedule", "linear"), X0Parameterization())
    assert not build("sampler", sampler, num_steps=2)(denoiser, ImageNoise(0, [0], (1, 2, 2))).requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bad_settings_are_refused_before_any_work(sampler: str) -> None:
    member = type(build("sampler", sampler))
    with pytest.raises(ValueError, match="needs num_steps >= 1, got 0"):
        member(num_steps=0)
    for clip in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"must be positive, got {clip}"):
            member(clip=clip)
    with pytest.raises(ValueError, match="cannot take 1001 sampling steps: the schedule has 1000"):
        member(num_steps=1001)(gaussian("linear"), ImageNoise(0, [0], (1, 2, 2)))


def test_bad_variances_and_etas_are_refused() -> None:
    with pytest.raises(ValueError, match="variance must be small or large, got 'medium'"):
        DDPMSampler(variance="medium")
    for eta in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"eta must lie in \[0, 1\].*got {eta}"):
            DDIMSampler(eta=eta)
