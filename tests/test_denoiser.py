"""The denoiser's conversions between x_0, eps, v and score, and classifier-free guidance."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.denoiser import Denoiser, GuidedDenoiser, Prediction
from diffusion_lit.parameterization import (
    EpsParameterization,
    Parameterization,
    VParameterization,
    X0Parameterization,
)
from diffusion_lit.schedule import DiscreteSchedule
from tests.analytic import GaussianDenoiser, build, grid_times, members

SCHEDULES = members("schedule", DiscreteSchedule)
PARAMETERIZATIONS = members("parameterization")
STEPS = [1, 2, 17, 250, 500, 900, 999]

ORACLES: dict[type[Parameterization], Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    EpsParameterization: lambda x_0, eps, alpha, sigma: eps,
    X0Parameterization: lambda x_0, eps, alpha, sigma: x_0,
    VParameterization: lambda x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
}
"""What the literature says that the network predicts."""


class Fixed(nn.Module):
    """A network that gives a known answer and remembers what it was asked."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        self.asked = x, c_noise, label
        return self.output


class Classes(nn.Module):
    """A class-conditional network that counts its calls; class 10 is the null label."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        self.calls += 1
        return torch.sin(x + c_noise.view(-1, 1, 1, 1) / 100 + label.view(-1, 1, 1, 1))


def draws(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clean images in [-1, 1] and noise, [num, 2, 3, 3], float64."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(num, 2, 3, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return x_0, torch.randn(num, 2, 3, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_network_on_target_gives_back_the_image_and_the_noise(name: str, parameterization: str) -> None:
    """Exactly, at every time: x_0, eps and v are all functions of the one output."""
    schedule = build("schedule", name)
    t = grid_times(schedule, STEPS)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_0, eps = draws(len(t))
    x_t = alpha * x_0 + sigma * eps
    denoiser = Denoiser(Fixed(torch.zeros(())), schedule, build("parameterization", parameterization))
    denoiser.network = Fixed(denoiser.target(x_0, x_t, t))
    p = denoiser(x_t, t)
    assert torch.equal(p.output, denoiser.target(x_0, x_t, t))
    torch.testing.assert_close(p.x_0, x_0, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.eps, eps, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.v, alpha * eps - sigma * x_0, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.score, -eps / sigma, rtol=0, atol=1e-7)  # 1 / sigma is 100 at the first step


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_target_is_what_the_literature_names(name: str, parameterization: str) -> None:
    schedule, member = build("schedule", name), build("parameterization", parameterization)
    if type(member) not in ORACLES:
        pytest.skip(f"{parameterization} has no literal form here")
    t = grid_times(schedule, STEPS)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_0, eps = draws(len(t))
    x_t = alpha * x_0 + sigma * eps
    oracle = ORACLES[type(member)](x_0, eps, alpha, sigma)
    denoiser = Denoiser(Fixed(oracle), schedule, member)
    torch.testing.assert_close(denoiser.target(x_0, x_t, t), oracle, rtol=0, atol=1e-9)
    torch.testing.assert_close(denoiser(x_t, t).x_0, x_0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_any_output_gives_mutually_consistent_views(name: str, parameterization: str) -> None:
    """x_t = alpha x_0 + sigma eps, x_0 = alpha x_t - sigma v and F = target(x_0), whatever the network says."""
    schedule = build("schedule", name)
    t = grid_times(schedule, STEPS)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t, output = draws(len(t), seed=1)
    denoiser = Denoiser(Fixed(output), schedule, build("parameterization", parameterization))
    p = denoiser(x_t, t)
    torch.testing.assert_close(alpha * p.x_0 + sigma * p.eps, x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha * x_t - sigma * p.v, p.x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sigma * x_t + alpha * p.v, p.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.score * sigma, -p.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser.target(p.x_0, x_t, t), output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_network_is_asked_at_its_own_scale_and_time(parameterization: str) -> None:
    schedule = build("schedule", "linear")
    t = grid_times(schedule, STEPS)
    x_t, output = draws(len(t), seed=2)
    network, label = Fixed(output), torch.arange(len(t))
    denoiser = Denoiser(network, schedule, build("parameterization", parameterization))
    denoiser(x_t, t, label)
    torch.testing.assert_close(network.asked[0], denoiser.coefficients(t).c_in * x_t)
    assert network.asked[1].tolist() == [step - 1 for step in STEPS]
    assert network.asked[2] is label


def test_a_low_precision_network_does_not_lower_the_images() -> None:
    schedule = build("schedule", "linear")
    t = grid_times(schedule, STEPS).float()
    x_t, output = (image.float() for image in draws(len(t)))
    low = Denoiser(Fixed(output.bfloat16()), schedule, EpsParameterization())(x_t, t)
    high = Denoiser(Fixed(output.bfloat16().float()), schedule, EpsParameterization())(x_t, t)
    assert low.x_0.dtype == low.eps.dtype == torch.float32
    assert torch.equal(low.x_0, high.x_0)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_score_is_the_gradient_of_the_log_density(name: str, parameterization: str) -> None:
    schedule = build("schedule", name)
    denoiser = GaussianDenoiser(schedule, 0.3, 0.5, build("parameterization", parameterization))
    t = grid_times(schedule, [*STEPS, 1000])
    x_t = draws(len(t))[1].requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_density(x_t, t), x_t)
    torch.testing.assert_close(denoiser(x_t, t).score, gradient, rtol=1e-8, atol=1e-8)


def test_clipping_x_0_carries_over_to_the_other_views() -> None:
    schedule = build("schedule", "linear")
    t = grid_times(schedule, STEPS)
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


def guided(guidance: float, parameterization: str = "eps") -> tuple[Classes, Denoiser, GuidedDenoiser]:
    network = Classes()
    denoiser = Denoiser(network, build("schedule", "linear"), build("parameterization", parameterization))
    return network, denoiser, GuidedDenoiser(denoiser, guidance)


def question() -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images, their times and their classes."""
    x_t, _ = draws(4, seed=4)
    return x_t, torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64).view(-1, 1, 1, 1), torch.tensor([3, 0, 9, 3])


def views(p: Prediction) -> dict[str, Tensor]:
    return {name: getattr(p, name) for name in ("x_0", "eps", "v", "score", "output", "x_t", "alpha", "sigma")}


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_guidance_combines_two_forwards_in_one_call(parameterization: str, guidance: float) -> None:
    """null + guidance (label - null) in x_0, eps, v, score and output alike."""
    network, denoiser, guide = guided(guidance, parameterization)
    x_t, t, label = question()
    actual = views(guide(x_t, t, label))
    assert network.calls == 1
    given, null = views(denoiser(x_t, t, label)), views(denoiser(x_t, t, torch.full_like(label, 10)))
    for name in ("x_0", "eps", "v", "score", "output"):
        expected = null[name] + guidance * (given[name] - null[name])
        torch.testing.assert_close(actual[name], expected, rtol=1e-9, atol=1e-9)
    for name in ("x_t", "alpha", "sigma"):
        assert torch.equal(actual[name], given[name])


@pytest.mark.parametrize(("guidance", "which"), [(1.0, "label"), (0.0, "null")])
def test_guidance_of_one_is_conditional_and_of_zero_unconditional(guidance: float, which: str) -> None:
    _, denoiser, guide = guided(guidance)
    x_t, t, label = question()
    plain = denoiser(x_t, t, label if which == "label" else torch.full_like(label, denoiser.null_label))
    assert torch.equal(guide(x_t, t, label).x_0, plain.x_0)


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


def test_an_unconditional_model_has_no_null_label() -> None:
    _, denoiser, _ = guided(1.0)
    assert (denoiser.num_classes, denoiser.null_label) == (10, 10)
    unconditional = Denoiser(Fixed(torch.zeros(())), denoiser.schedule, denoiser.parameterization)
    assert unconditional.num_classes is None
    with pytest.raises(ValueError, match="unconditional model has no labels"):
        _ = unconditional.null_label
