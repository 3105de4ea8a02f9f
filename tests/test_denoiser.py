"""The denoiser's conversions between x_0, eps, v and score, and classifier-free guidance."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.parameterization import EDMParameterization, EpsParameterization, X0Parameterization
from diffusion_lit.schedule import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, Schedule
from tests.analytic import Fake, GaussianDenoiser, build, members

PARAMETERIZATIONS = members("parameterization")
ZERO = "cosine, zero terminal SNR"
SCHEDULES = [*members("schedule"), ZERO]
STEPS = [1, 2, 17, 250, 500, 900, 999, 1000]
SIGMA_DATA = 0.5


def process(name: str) -> Schedule:
    return CosineSchedule(zero_terminal_snr=True) if name == ZERO else build("schedule", name)


def refused(name: str, parameterization: str) -> bool:
    """Where no signal is left, the noise does not determine x_0."""
    return parameterization == "eps" and float(process(name).alpha(torch.ones(1))) == 0


PAIRS = [(name, p) for name in SCHEDULES for p in PARAMETERIZATIONS if not refused(name, p)]

ORACLES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "eps": lambda x_0, eps, alpha, sigma: eps,
    "x0": lambda x_0, eps, alpha, sigma: x_0,
    "v": lambda x_0, eps, alpha, sigma: (alpha * eps - sigma * x_0) / (alpha**2 + sigma**2).sqrt(),
    "velocity": lambda x_0, eps, alpha, sigma: eps - x_0,
    "edm": lambda x_0, eps, alpha, sigma: (
        (sigma * x_0 / SIGMA_DATA - alpha * SIGMA_DATA * eps) / (alpha**2 * SIGMA_DATA**2 + sigma**2).sqrt()
    ),
}
"""What the literature says that the network predicts."""


class Fixed(Fake):
    """A network that gives a known answer and remembers what it was asked."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        self.asked = x, c_noise, condition
        return self.output


class Classes(Fake):
    """A class-conditional network that counts its calls."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        assert condition.label is not None
        self.calls += 1
        return torch.sin(x + c_noise.view(-1, 1, 1, 1) / 100 + condition.label.view(-1, 1, 1, 1))


def draws(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clean images in [-1, 1] and noise, [num, 2, 3, 3], float64."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(num, 2, 3, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return x_0, torch.randn(num, 2, 3, 3, generator=generator, dtype=torch.float64)


def moments() -> Tensor:
    """i / 1000 for each of `STEPS`: times of the chains' steps, and of any other schedule."""
    return torch.tensor(STEPS, dtype=torch.float64).view(-1, 1, 1, 1) / 1000


@pytest.mark.parametrize(("name", "parameterization"), PAIRS)
def test_a_network_on_target_gives_back_the_image_and_the_noise(name: str, parameterization: str) -> None:
    """Exactly, at every time: x_0, eps and v are all functions of the one output, and the same for all of its kinds."""
    schedule, t = process(name), moments()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_0, eps = draws(len(t))
    x_t = alpha * x_0 + sigma * eps
    oracle = ORACLES[parameterization](x_0, eps, alpha, sigma)
    denoiser = Denoiser(Fixed(oracle), schedule, build("parameterization", parameterization))
    p = denoiser(x_t, t)
    torch.testing.assert_close(p.target(x_0), oracle, rtol=0, atol=1e-9)
    assert torch.equal(p.output, oracle)
    torch.testing.assert_close(p.x_0, x_0, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.eps, eps, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.v, alpha * eps - sigma * x_0, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.score, -eps / sigma, rtol=1e-9, atol=1e-7)  # 1 / sigma is 500 at EDM's first step


@pytest.mark.parametrize(("name", "parameterization"), PAIRS)
def test_any_output_gives_mutually_consistent_views(name: str, parameterization: str) -> None:
    """x_t = alpha x_0 + sigma eps, (alpha^2 + sigma^2) x_0 = alpha x_t - sigma v and F = target(x_0), whatever F is."""
    schedule, t = process(name), moments()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t, output = draws(len(t), seed=1)
    denoiser = Denoiser(Fixed(output), schedule, build("parameterization", parameterization))
    p, norm = denoiser(x_t, t), alpha**2 + sigma**2
    torch.testing.assert_close(alpha * p.x_0 + sigma * p.eps, x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((alpha * x_t - sigma * p.v) / norm, p.x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((sigma * x_t + alpha * p.v) / norm, p.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.score * sigma, -p.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.target(p.x_0), output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if refused(name, "eps")])
def test_eps_is_refused_where_no_signal_is_left(name: str) -> None:
    schedule = process(name)
    message = rf"EpsParameterization cannot give x_0 at t = 1 of {type(schedule).__name__}.*Use parameterization=v"
    with pytest.raises(ValueError, match=message):
        Denoiser(Fixed(torch.zeros(())), schedule, EpsParameterization())


def test_where_eps_is_refused() -> None:
    """On the straight path and at the end of a chain of zero terminal SNR, and nowhere else."""
    assert {type(process(name)) for name in SCHEDULES if refused(name, "eps")} == {FlowSchedule, CosineSchedule}
    assert not refused("cosine", "eps")


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_is_the_published_preconditioning(sigma_data: float) -> None:
    """Karras et al. 2022, table 1 and eq. 8: the effective target of F for an image y and noise n = sigma eps."""
    schedule, t = EDMSchedule(), moments()
    y, eps = draws(len(t))
    sigma = schedule.sigma(t)
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma_data**2 + sigma**2).sqrt()
    c_in = 1 / (sigma**2 + sigma_data**2).sqrt()
    denoiser = Denoiser(Fixed(eps), schedule, EDMParameterization(sigma_data))
    coefficients = denoiser.parameterization(schedule.alpha(t), sigma)
    for actual, expected in zip(coefficients, (c_skip, c_out, c_in), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    noisy = y + sigma * eps
    torch.testing.assert_close(denoiser(noisy, t).target(y), (y - c_skip * noisy) / c_out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser(noisy, t).x_0, c_skip * noisy + c_out * eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_edm_s_target_has_unit_variance_and_its_errors_are_amplified_least(name: str, sigma_data: float) -> None:
    """Its two principles (Karras et al. 2022, B.6), on any schedule: c_out^2, a parabola in c_skip, is at its least."""
    schedule, t = process(name), moments()
    alpha, sigma, one = schedule.alpha(t), schedule.sigma(t), torch.ones_like(t)
    denoiser = Denoiser(Fixed(one), schedule, EDMParameterization(sigma_data))
    of_x_0, of_eps = denoiser(alpha, t).target(one), denoiser(sigma, t).target(0 * one)
    torch.testing.assert_close(of_x_0**2 * sigma_data**2 + of_eps**2, one, rtol=1e-9, atol=0)
    c_skip, c_out, _ = denoiser.parameterization(alpha, sigma)

    def amplified(skip: Tensor) -> Tensor:
        return (1 - skip * alpha) ** 2 * sigma_data**2 + skip**2 * sigma**2

    torch.testing.assert_close(amplified(c_skip), c_out**2, rtol=1e-9, atol=1e-15)
    for step in (-0.01, 0.01):
        assert (amplified(c_skip + step) > c_out**2).all()


@pytest.mark.parametrize("sigma_data", [0.0, -0.5])
def test_a_spread_of_data_that_is_not_positive_is_refused(sigma_data: float) -> None:
    with pytest.raises(ValueError, match=f"sigma_data must be positive, got {sigma_data}"):
        EDMParameterization(sigma_data)


@pytest.mark.parametrize(("name", "parameterization"), PAIRS)
def test_the_network_is_asked_at_its_own_scale_and_time(name: str, parameterization: str) -> None:
    schedule, t = process(name), moments()
    x_t, output = draws(len(t), seed=2)
    network, condition = Fixed(output), Condition(torch.arange(len(t)))
    denoiser = Denoiser(network, schedule, build("parameterization", parameterization))
    denoiser(x_t, t, condition)
    c_in = denoiser.parameterization(schedule.alpha(t), schedule.sigma(t)).c_in
    torch.testing.assert_close(network.asked[0], c_in * x_t)
    assert torch.equal(network.asked[1], schedule.c_noise(t).flatten())
    assert network.asked[2] is condition


def test_a_chain_s_network_receives_the_step_counted_from_0() -> None:
    network = Fixed(torch.zeros(()))
    Denoiser(network, LinearSchedule(), EpsParameterization())(draws(len(STEPS))[0], moments())
    assert network.asked[1].tolist() == [step - 1 for step in STEPS]


@pytest.mark.parametrize(("name", "parameterization"), PAIRS)
def test_a_learned_variance_is_the_second_half_of_the_output(name: str, parameterization: str) -> None:
    """-1 is the small and 1 the large one, the logarithm in proportion between (Nichol & Dhariwal 2021, eq. 15).

    Large by itself is small at the step to the data: improved-diffusion's FIXED_LARGE.
    """

    class TwoHalves(Fixed):
        learn_variance = True

    schedule, t = process(name), moments()
    s, member = t - 1e-3, build("parameterization", parameterization)
    x_t, output = draws(len(t), seed=2)
    said = torch.linspace(-1.5, 1.5, x_t.numel(), dtype=torch.float64).view_as(x_t)
    p = Denoiser(TwoHalves(torch.cat([output, said], 1)), schedule, member)(x_t, t)
    plain = Denoiser(Fixed(output), schedule, member)(x_t, t)
    assert torch.equal(p.x_0, plain.x_0)
    assert plain.variance is None
    small, large = (schedule.log_variance(s, t, fraction) for fraction in (0, 1))
    assert (s == 0).any() and (s > 0).any()
    for variance, expected in (("small", small), ("large", torch.where(s > 0, large, small))):
        assert torch.equal(plain.log_variance(s, variance), expected)
    expected = (1 - said) / 2 * small + (1 + said) / 2 * large
    torch.testing.assert_close(p.log_variance(s, "learned"), expected, rtol=1e-9, atol=1e-9)


def test_a_low_precision_network_does_not_lower_the_images() -> None:
    schedule = build("schedule", "linear")
    t = moments().float()
    x_t, output = (image.float() for image in draws(len(t)))
    low = Denoiser(Fixed(output.bfloat16()), schedule, EpsParameterization())(x_t, t)
    high = Denoiser(Fixed(output.bfloat16().float()), schedule, EpsParameterization())(x_t, t)
    assert low.x_0.dtype == low.eps.dtype == torch.float32
    assert torch.equal(low.x_0, high.x_0)


@pytest.mark.parametrize(("name", "parameterization"), PAIRS)
def test_score_is_the_gradient_of_the_log_density(name: str, parameterization: str) -> None:
    schedule, t = process(name), moments()
    denoiser = GaussianDenoiser(schedule, 0.3, 0.5, build("parameterization", parameterization))
    x_t = draws(len(t))[1].requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_density(x_t, t), x_t)
    torch.testing.assert_close(denoiser(x_t, t).score, gradient, rtol=1e-8, atol=1e-8)


def test_clipping_x_0_carries_over_to_the_other_views() -> None:
    schedule, t = LinearSchedule(), moments()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t, output = draws(len(t), seed=3)
    p = Denoiser(Fixed(3 * output), schedule, X0Parameterization())(x_t, t)
    clipped = p.clip(0.75)
    assert float(p.x_0.abs().max()) > 0.75
    assert torch.equal(clipped.x_0, p.x_0.clamp(-0.75, 0.75))
    torch.testing.assert_close(clipped.eps, (x_t - alpha * clipped.x_0) / sigma)
    torch.testing.assert_close(clipped.v, alpha * clipped.eps - sigma * clipped.x_0)
    torch.testing.assert_close(clipped.score, -clipped.eps / sigma)
    assert torch.equal(clipped.output, p.output)


@pytest.mark.parametrize("limit", [1.0, 0.5])
def test_dynamic_thresholding_scales_an_image_before_it_cuts(limit: float) -> None:
    """Saharia et al. 2022, section 2.3, image by image: by the quantile of |x_0|, where it is beyond the limit."""
    schedule, t = LinearSchedule(), moments()
    scale = torch.tensor([0.1, 0.3, 0.8, 1.0, 2.0, 3.0, 10.0, 50.0], dtype=torch.float64).view(-1, 1, 1, 1)
    x_t, output = draws(len(t), seed=3)
    p = Denoiser(Fixed(scale * output), schedule, X0Parameterization())(x_t, t)
    expected = []
    for image in p.x_0.numpy():
        extent = max(float(np.quantile(np.abs(image), 0.9)), limit)
        expected.append(np.clip(image, -extent, extent) / extent * limit)
    clipped = p.clip(limit, 0.9)
    torch.testing.assert_close(clipped.x_0, torch.from_numpy(np.stack(expected)), rtol=1e-6, atol=1e-9)
    assert torch.equal(clipped.x_0[0], p.x_0[0])


def guided(guidance: float, parameterization: str = "eps") -> tuple[Classes, Denoiser, GuidedDenoiser]:
    network = Classes()
    denoiser = Denoiser(network, build("schedule", "linear"), build("parameterization", parameterization))
    return network, denoiser, GuidedDenoiser(denoiser, guidance)


def question() -> tuple[Tensor, Tensor, Condition]:
    """Noisy images, their times and their classes."""
    x_t, _ = draws(4, seed=4)
    return (
        x_t,
        torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64).view(-1, 1, 1, 1),
        Condition(torch.tensor([3, 0, 9, 3])),
    )


def views(p: Prediction) -> dict[str, Tensor]:
    return {name: getattr(p, name) for name in ("x_0", "eps", "v", "score", "output", "x_t", "alpha", "sigma")}


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_guidance_combines_two_forwards_in_one_call(parameterization: str, guidance: float) -> None:
    """null + guidance (label - null) in x_0, eps, v, score and output alike."""
    network, denoiser, guide = guided(guidance, parameterization)
    x_t, t, condition = question()
    actual = views(guide(x_t, t, condition))
    assert network.calls == 1
    given, null = views(denoiser(x_t, t, condition)), views(denoiser(x_t, t, Condition(torch.full((4,), NO_CLASS))))
    for name in ("x_0", "eps", "v", "score", "output"):
        expected = null[name] + guidance * (given[name] - null[name])
        torch.testing.assert_close(actual[name], expected, rtol=1e-9, atol=1e-9)
    for name in ("x_t", "alpha", "sigma"):
        assert torch.equal(actual[name], given[name])


@pytest.mark.parametrize(("guidance", "which"), [(1.0, "label"), (0.0, "null")])
def test_guidance_of_one_is_conditional_and_of_zero_unconditional(guidance: float, which: str) -> None:
    _, denoiser, guide = guided(guidance)
    x_t, t, condition = question()
    plain = denoiser(x_t, t, condition if which == "label" else condition.null())
    assert torch.equal(guide(x_t, t, condition).x_0, plain.x_0)


def test_guidance_has_the_schedule_of_its_model() -> None:
    _, denoiser, guide = guided(2.0)
    assert guide.schedule is denoiser.schedule


def test_guidance_refuses_what_cannot_be_guided() -> None:
    _, denoiser, guide = guided(2.0)
    with pytest.raises(ValueError, match=r"must not be negative, got -0.5"):
        GuidedDenoiser(denoiser, -0.5)
    unconditional = Denoiser(Fixed(torch.zeros(())), denoiser.schedule, denoiser.parameterization)
    with pytest.raises(ValueError, match=r"guidance=2.0 needs a class-conditional model"):
        GuidedDenoiser(unconditional, 2.0)
    with pytest.raises(ValueError, match="give labels, or use guidance=1"):
        guide(*question()[:2])


def test_a_denoiser_says_of_itself_what_its_network_says() -> None:
    _, denoiser, guide = guided(1.0)
    unconditional = Denoiser(Fixed(torch.zeros(())), denoiser.schedule, denoiser.parameterization)
    assert (denoiser.num_classes, guide.num_classes, unconditional.num_classes) == (10, 10, None)
    for model in (denoiser, guide):
        assert (model.image_shape, model.learns_variance, model.space) == ((1, 1, 1), False, denoiser.space)
