"""What samplers refuse and why, what they allow where no signal is left, and where they put their steps."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import DDIMSampler, Sampler
from diffusion_lit.schedule import SPACINGS, DiscreteSchedule, Schedule, spaced_times
from tests.analytic import Fake, GaussianDenoiser, build, members

SAMPLERS = members("sampler")
SCHEDULES = members("schedule", Schedule)
DISCRETE = members("schedule", DiscreteSchedule)
CONTINUOUS = [name for name in SCHEDULES if name not in DISCRETE]
ENDS_IN_NOISE: dict[str, dict[str, object]] = {**{name: {"zero_terminal_snr": True} for name in DISCRETE}, "flow": {}}
"""Schedules without signal at t = 1."""
MEAN, STD = 0.3, 0.5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On images this small, threads only wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


class Network(Fake):
    """A smooth function of the image and the time; asked to, it gives a variance, too."""

    def __init__(self, learn_variance: bool = False) -> None:
        super().__init__()
        self.learn_variance = learn_variance

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        output = torch.sin(1.5 * x + c_noise.view(-1, 1, 1, 1) / 500)
        return torch.cat([output, output], 1) if self.learn_variance else output


def denoiser_of(
    schedule: str, parameterization: str = "v", learn_variance: bool = False, **overrides: object
) -> Denoiser:
    return Denoiser(
        Network(learn_variance), build("schedule", schedule, **overrides), build("parameterization", parameterization)
    )


def refused(sampler: Sampler, denoiser: Denoiser, reason: str) -> None:
    """By `check`, and by the walk before it draws any noise."""

    def noise() -> Tensor:
        raise AssertionError("drew noise before it refused")

    with pytest.raises(ValueError, match=reason):
        sampler.check(denoiser)
    with pytest.raises(ValueError, match=reason):
        sampler(denoiser, noise)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_that_all_samplers_share(sampler: str) -> None:
    kind = type(build("sampler", sampler))
    for num_steps in (0, -1):
        with pytest.raises(ValueError, match=f"num_steps >= 1, got {num_steps}"):
            kind(num_steps=num_steps)
    for clip in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"must be positive, got {clip}"):
            kind(clip=clip)
    with pytest.raises(ValueError, match=r"percentile .* needs clip, got percentile=0.995, clip=None"):
        kind(percentile=0.995)
    for percentile in (0.0, 1.0, 99.5):
        with pytest.raises(ValueError, match=rf"percentile must lie in \(0, 1\).* got percentile={percentile}"):
            kind(clip=1.0, percentile=percentile)
    with pytest.raises(ValueError, match=f"spacing must be one of {', '.join(SPACINGS)}, or null; got 'even'"):
        kind(spacing="even")


@pytest.mark.parametrize(
    ("sampler", "setting", "values", "reason"),
    [
        ("ddpm", "variance", ("beta", ""), "variance must be small, large or learned, got"),
        ("ddim", "eta", (-0.1, 1.1), r"eta must lie in \[0, 1\]"),
        *((name, "churn", (-1.0,), "must not be negative.* got churn=-1.0") for name in ("euler", "heun")),
        *((name, "churn_min", (-1.0,), "must not be negative.* churn_min=-1.0") for name in ("euler", "heun")),
        *((name, "churn_max", (-1.0,), "nor churn_max under churn_min.* churn_max=-1.0") for name in ("euler", "heun")),
        *((name, "churn_noise", (-1.0,), "must not be negative.* churn_noise=-1.0") for name in ("euler", "heun")),
        ("unipc", "order", (0, 4), "order must be 1, 2 or 3, got"),
        ("ode", "rtol", (0.0, -1e-3), "rtol and atol must be positive, got rtol="),
        ("ode", "atol", (0.0, -1e-3), "rtol and atol must be positive, got .*atol="),
        ("predictor_corrector", "num_corrections", (0,), "num_corrections >= 1 .* got 0"),
        ("predictor_corrector", "snr", (0.0, -0.1), "snr > 0, got"),
    ],
)
def test_settings_of_single_samplers(sampler: str, setting: str, values: tuple[object, ...], reason: str) -> None:
    kind = type(build("sampler", sampler))
    for value in values:
        with pytest.raises(ValueError, match=reason):
            kind(**{setting: value})


@pytest.mark.parametrize("schedule", DISCRETE)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_steps_than_the_schedule_has(sampler: str, schedule: str) -> None:
    denoiser = denoiser_of(schedule)
    reason = "cannot take 1001 sampling steps: num_steps must be between 1 and 1000, the steps of the schedule"
    refused(build("sampler", sampler, num_steps=1001), denoiser, reason)
    build("sampler", sampler, num_steps=1000).check(denoiser)


@pytest.mark.parametrize("schedule", CONTINUOUS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_the_steps_of_a_schedule_without_steps(sampler: str, schedule: str) -> None:
    if sampler == "ddpm" and schedule in ("edm", "flow"):
        reason = "variance stays 1"
    elif schedule == "flow" and sampler in ("euler_maruyama", "predictor_corrector"):
        reason = "is continuous|no signal is left"
    else:
        reason = f"{type(build('schedule', schedule)).__name__} is continuous, .* set sampler.num_steps="
    refused(build("sampler", sampler, num_steps=None), denoiser_of(schedule), reason)


@pytest.mark.parametrize("schedule", ["edm", "flow"])
@pytest.mark.parametrize("num_steps", [20, None])
def test_ddpm_where_the_variance_does_not_stay_1(num_steps: int | None, schedule: str) -> None:
    name = type(build("schedule", schedule)).__name__
    reason = f"sampler=ddpm reverses a chain whose variance stays 1, and {name}'s does not: use sampler=ddim"
    refused(build("sampler", "ddpm", num_steps=num_steps), denoiser_of(schedule), reason)


@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_a_learned_variance_of_a_network_without_one(schedule: str) -> None:
    sampler = build("sampler", "ddpm", num_steps=10, variance="learned")
    refused(
        sampler,
        denoiser_of(schedule),
        "variance=learned needs a network .* model.learn_variance=true; this one has none",
    )
    sampler.check(denoiser_of(schedule, learn_variance=True))


@pytest.mark.parametrize(("schedule", "overrides"), ENDS_IN_NOISE.items())
def test_division_by_the_signal_where_there_is_none(schedule: str, overrides: dict[str, object]) -> None:
    denoiser, name = denoiser_of(schedule, **overrides), type(build("schedule", schedule)).__name__
    for sampler in ("euler_maruyama", "predictor_corrector"):
        member = build("sampler", sampler, num_steps=20)
        refused(member, denoiser, f"{type(member).__name__} divides by alpha, which is 0 at t = 1 of {name}")
    refused(build("sampler", "heun", scaled=True), denoiser, f"HeunSampler divides by alpha, .* of {name}")
    build("sampler", "heun", scaled=False).check(denoiser)


@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
@pytest.mark.parametrize(("schedule", "overrides"), ENDS_IN_NOISE.items())
def test_steps_counted_in_a_log_snr_without_end(schedule: str, overrides: dict[str, object], spacing: str) -> None:
    reason = f"spacing={spacing} counts in log SNR, which is infinite at t = 1 for .*: no signal is left"
    refused(DDIMSampler(10, spacing=spacing), denoiser_of(schedule, **overrides), reason)


@pytest.mark.parametrize(("schedule", "overrides"), ENDS_IN_NOISE.items())
def test_a_network_that_predicts_noise_where_there_is_nothing_else(schedule: str, overrides: dict[str, object]) -> None:
    name = type(build("schedule", schedule)).__name__
    for parameterization in members("parameterization"):
        if parameterization == "eps":
            with pytest.raises(
                ValueError, match=f"EpsParameterization cannot give x_0 at t = 1 of {name}, where no signal"
            ):
                denoiser_of(schedule, parameterization, **overrides)
        else:
            assert denoiser_of(schedule, parameterization, **overrides).parameterization is not None


@pytest.mark.parametrize("schedule", DISCRETE)
def test_steps_closer_than_the_schedule_has_them(schedule: str) -> None:
    reason = f"500 steps with spacing=quadratic lie closer than {type(build('schedule', schedule)).__name__} tells"
    refused(DDIMSampler(500, spacing="quadratic"), denoiser_of(schedule), reason)


ALLOWED: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in ("ddim", "ddpm", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "ode")},
    "ddim eta=1": ("ddim", {"eta": 1.0}),
    "ddpm large": ("ddpm", {"variance": "large"}),
    "unipc order=1": ("unipc", {"order": 1}),
    "unipc order=3": ("unipc", {"order": 3}),
    "euler churn": ("euler", {"churn": 4.0}),
    "heun churn": ("heun", {"churn": 4.0}),
}
"""What starts where no signal is left; `ddpm` on chains."""


def test_every_member_is_either_allowed_or_refused() -> None:
    assert {name for name, _ in ALLOWED.values()} | {"euler_maruyama", "predictor_corrector"} == set(SAMPLERS)


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(s, name) for s in ENDS_IN_NOISE for name in ALLOWED if (s, ALLOWED[name][0]) != ("flow", "ddpm")],
)
def test_samplers_start_from_pure_noise(schedule: str, name: str) -> None:
    """A network of v gives finite images, also in one step; of Gaussian data, 40 steps give the moments within 15 %."""
    member, overrides = ALLOWED[name]
    denoiser = denoiser_of(schedule, **ENDS_IN_NOISE[schedule])
    for num_steps in (1, 2, 5):
        sampler = build("sampler", member, num_steps=num_steps, clip=None, **overrides)
        assert sampler(denoiser, ImageNoise(0, range(3), (1, 2, 2))).isfinite().all(), num_steps
    if schedule not in ("cosine", "flow"):  # a chain and a path will do; the square-root one's last step is too long
        return
    gaussian = GaussianDenoiser(denoiser.schedule, MEAN, STD)
    sampler = build("sampler", member, num_steps=2 if name == "ode" else 40, clip=None, **overrides)
    images = sampler(gaussian, ImageNoise(0, range(4), (1, 32, 32)))
    assert float(images.mean()) == pytest.approx(MEAN, rel=0.15)
    assert float(images.std()) == pytest.approx(STD, rel=0.15)


def imagen_threshold(x_0: Tensor, percentile: float) -> np.ndarray:
    """Clip x_0 to [-s, s] and divide by s, the percentile of |x_0| but no less than 1 (Saharia et al. 2022, 2.3)."""
    images = []
    for image in x_0.numpy():
        s = max(np.percentile(np.abs(image), 100 * percentile), 1.0)
        images.append(np.clip(image, -s, s) / s)
    return np.stack(images)


@pytest.mark.parametrize("percentile", [0.995, 0.8])
@pytest.mark.parametrize("clip", [1.0, 0.5])
def test_dynamic_thresholding_is_imagens(clip: float, percentile: float) -> None:
    """Image by image; for another limit, in units of it. The quantile is a float32's."""
    scales = torch.tensor([0.1, 1.0, 3.0, 20.0], dtype=torch.float64).view(-1, 1, 1, 1)
    x_0 = scales * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = torch.ones(4, 1, 1, 1, dtype=torch.float64)
    x_t = x_0 + one
    p = Prediction(build("schedule", "flow"), one, x_t, x_0, x_0, one, one, 0 * one, one, 0 * one)
    clipped = p.clip(clip, percentile)
    expected = torch.from_numpy(clip * imagen_threshold(x_0 / clip, percentile))
    torch.testing.assert_close(clipped.x_0, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(clipped.eps, x_t - expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(clipped.x_0[0], x_0[0].clamp(-clip, clip))  # within the limit, and so not scaled by the others
    assert not torch.allclose(clipped.x_0[2:], x_0[2:].clamp(-clip, clip), atol=0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_thresholds_what_the_model_says(sampler: str) -> None:
    """A step to the data ends on the estimate of x_0 itself; the reverse SDE's and `ode`'s at least depend on it."""

    class Wild(Fake):
        def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
            return 5 * torch.sin(x)

    denoiser = Denoiser(Wild(), build("schedule", "linear"), build("parameterization", "x0"))
    x_t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((2, 1, 1, 1), 0.5, dtype=torch.float64)
    soft, hard = (build("sampler", sampler, clip=1.0, percentile=percentile) for percentile in (0.9, None))
    predicted = soft.walk(denoiser).predict(x_t, t).x_0
    expected = torch.from_numpy(imagen_threshold(denoiser(x_t, t).x_0, 0.9))
    torch.testing.assert_close(predicted, expected, rtol=1e-6, atol=1e-6)
    zeros = torch.zeros_like(x_t)
    soft_image, hard_image = (
        member.step(member.walk(denoiser, noise=lambda: zeros), x_t, t, 0 * t) for member in (soft, hard)
    )
    assert float((soft_image - hard_image).abs().max()) > 0.05
    if sampler not in ("euler_maruyama", "predictor_corrector", "ode"):
        torch.testing.assert_close(soft_image, predicted, rtol=1e-9, atol=1e-9)


NUMBERS = (1, 2, 5, 10, 28, 100)


def edm_times(schedule: Schedule, num_steps: int, rho: float = 7) -> np.ndarray:
    """sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho (EDM, eq. 5)."""
    ends = torch.tensor([1.0, schedule.t_min], dtype=torch.float64)
    sigma_max, sigma_min = (schedule.sigma(ends) / schedule.alpha(ends)).tolist()
    share = np.arange(num_steps) / max(num_steps - 1, 1)
    return (sigma_max ** (1 / rho) + share * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def snapped(schedule: Schedule, times: np.ndarray) -> np.ndarray:
    """In a chain, moved to the next step; which rounding of the value must not push one further."""
    steps = schedule.num_timesteps
    return np.ceil(times * steps - 1e-9) / steps if steps else times


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_times_lead_down_from_1_to_the_data(schedule: str, spacing: str) -> None:
    """But for the walks in log SNR where it has no end, which are refused."""
    path = build("schedule", schedule)
    for num_steps in NUMBERS:
        if schedule == "flow" and spacing in ("karras", "log_snr"):
            with pytest.raises(ValueError, match=f"spacing={spacing}"):
                spaced_times(path, num_steps, spacing)
            continue
        times = spaced_times(path, num_steps, spacing)
        assert times.dtype == torch.float64
        assert times.shape == (num_steps + 1,)
        assert (times.diff() < 0).all()
        assert times[-1] == 0
        assert times[-2] >= path.t_min * (1 - 1e-12)
        first = snapped(path, np.array(1 - 1 / num_steps + path.t_min)) if spacing == "leading" else 1
        assert times[0] == pytest.approx(float(first), abs=1e-12)
        if schedule in DISCRETE and spacing not in ("karras", "log_snr"):
            steps = times * path.num_timesteps
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_times_are_those_of_the_formulas(schedule: str) -> None:
    path = build("schedule", schedule)
    for n in (2, 5, 10, 28):
        formulas = {
            "uniform": np.linspace(1, path.t_min, n),
            "trailing": 1 - np.arange(n) / n,
            "leading": np.arange(n)[::-1] / n + path.t_min,
            "quadratic": np.linspace(1, path.t_min**0.5, n) ** 2,
        }
        for spacing, times in formulas.items():
            np.testing.assert_allclose(spaced_times(path, n, spacing)[:-1], snapped(path, times), rtol=0, atol=1e-12)
        if schedule != "flow":
            karras, log_snr = spaced_times(path, n, "karras")[:-1], spaced_times(path, n, "log_snr")[:-1]
            np.testing.assert_allclose(path.sigma(karras) / path.alpha(karras), edm_times(path, n), rtol=1e-9)
            levels = path.log_snr(log_snr).numpy()
            np.testing.assert_allclose(levels, np.linspace(levels[0], levels[-1], n), rtol=0, atol=1e-9)
            assert levels[-1] == pytest.approx(float(path.log_snr(torch.tensor(path.t_min, dtype=torch.float64))))


@pytest.mark.parametrize("num_steps", [2, 18, 40, 256])
def test_the_edm_schedules_own_spacing_is_the_papers(num_steps: int) -> None:
    """18, 40 and 256 steps are the paper's own, from sigma = 80 to 0.002 and then 0."""
    schedule = build("schedule", "edm")
    sigmas = schedule.sigma(spaced_times(schedule, num_steps)[:-1]).numpy()
    np.testing.assert_allclose(sigmas, edm_times(schedule, num_steps), rtol=1e-10)
    assert (sigmas[0], sigmas[-1]) == pytest.approx((80, 0.002))


@pytest.mark.parametrize(
    ("spacing", "theirs", "numbers"),
    [
        ("trailing", "trailing", (1, 2, 10, 50, 250, 1000)),
        ("leading", "leading", (1, 2, 10, 50, 250, 1000)),
        ("uniform", "linspace", (2, 4, 10, 28, 112, 334, 1000)),  # 999 = 3 x 9 x 37 divides evenly by n - 1
    ],
)
def test_steps_are_diffusers(spacing: str, theirs: str, numbers: tuple[int, ...]) -> None:
    """Where T divides evenly; they round to the nearest step, and we to the next. They count steps from 0."""
    diffusers = pytest.importorskip("diffusers")
    schedule = build("schedule", "linear")
    for num_steps in numbers:
        scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, timestep_spacing=theirs, steps_offset=0)
        scheduler.set_timesteps(num_steps)
        ours = schedule.index(spaced_times(schedule, num_steps, spacing))[:-1] - 1
        assert ours.tolist() == scheduler.timesteps.tolist()
