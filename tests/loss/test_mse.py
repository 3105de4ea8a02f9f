"""The mean squared error against its papers, Huber's loss and learned uncertainty; what every loss does."""

import copy
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density, ImportanceDensity, UniformDensity
from diffusion_lit.loss import HybridLoss, Loss, LossTerms, MSELoss, UncertaintyLoss, VLBLoss
from diffusion_lit.parameterization import (
    EpsParameterization,
    VelocityParameterization,
    VParameterization,
    X0Parameterization,
)
from diffusion_lit.schedule import CosineSchedule, DiscreteSchedule, FlowSchedule, LinearSchedule
from diffusion_lit.weighting import MinSNRWeighting, SNRWeighting, UnitWeighting, Weighting
from tests.analytic import Fake, build, members, weight_of

SCHEDULES = members("schedule", DiscreteSchedule)
T = 1000


class Smooth(Fake):
    """Any function of the image and of the step's number counted from 0."""

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return torch.sin(2 * x + c_noise.view(-1, 1, 1, 1) / 300)


class Both(Fake):
    """As `Smooth`, with a variance beside it."""

    learn_variance = True

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return torch.cat([Smooth()(x, c_noise, condition), torch.cos(3 * x)], 1)


class Constant(Fake):
    """Says the same of every pixel, exp(g / 2), where g is a smooth function of time."""

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return (log_error(c_noise.view(-1, 1, 1, 1) / 999) / 2).exp().expand(x.shape)


def log_error(t: Tensor) -> Tensor:
    """Of `Constant` where the right answer is 0."""
    return torch.cos(4 * t) - 2 * t


def images(num: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(num, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype) * 2 - 1


def l_simple(betas: list[float], x_0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ho et al. 2020, algorithm 1, in beta form: t ~ U{1..T}, |eps - F(x_t, t - 1)|^2."""
    step = torch.ceil((1 - torch.rand(len(x_0), 1, 1, 1, generator=generator, dtype=x_0.dtype)).double() * T)
    eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
    losses = []
    for image, noise, number in zip(x_0, eps, step.flatten().int().tolist(), strict=True):
        abar = math.prod(1 - beta for beta in betas[:number])
        x_t = math.sqrt(abar) * image + math.sqrt(1 - abar) * noise
        output = Smooth()(x_t[None], torch.tensor([number - 1], dtype=x_0.dtype))[0]
        losses.append((noise - output).square().mean())
    return torch.stack(losses), step.flatten() / T


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_eps_with_unit_weighting_is_l_simple(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """In float32 x_t / alpha and x_t / sigma lose up to three digits at the ends of the chain."""
    schedule, x_0 = build("schedule", name), images(64, dtype)
    loss = MSELoss(UniformDensity(), UnitWeighting())
    denoiser = Denoiser(Smooth(), schedule, EpsParameterization())
    actual = loss(denoiser, x_0, generator=torch.Generator().manual_seed(8))
    expected, t = l_simple(schedule.betas.tolist(), x_0, torch.Generator().manual_seed(8))
    torch.testing.assert_close(actual.t.double(), t, rtol=0, atol=1e-7)
    torch.testing.assert_close(actual.loss, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("parameterization", members("parameterization"))
@pytest.mark.parametrize("weighting", members("weighting"))
def test_loss_is_the_weighted_error_of_the_output(weighting: str, parameterization: str) -> None:
    """And equally the weight over c_out^2 on the error of x_0, with the same draws."""
    schedule, x_0 = build("schedule", "linear"), images(16, torch.float64)
    denoiser = Denoiser(Smooth(), schedule, build("parameterization", parameterization))
    weight = build("weighting", weighting)
    actual = MSELoss(UniformDensity(), weight)(denoiser, x_0, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    u = 1 - torch.rand(16, 1, 1, 1, generator=generator, dtype=torch.float64)
    t = torch.ceil(u * T) / T
    x_t = schedule.add_noise(x_0, torch.randn(x_0.shape, generator=generator, dtype=torch.float64), t)
    error = (x_0 - denoiser(x_t, t).x_0).square().mean((1, 2, 3))
    expected = (weight_of(weight, denoiser, t) / denoiser(x_t, t).c_out ** 2).flatten() * error
    torch.testing.assert_close(actual.loss, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_velocity_on_the_straight_path_is_flow_matching(shift: float) -> None:
    """|F((1 - t) x_0 + t eps) - (eps - x_0)|^2 (Lipman et al. 2023, eq. 23, with the ends of time exchanged)."""
    x_0 = images(16, torch.float64)
    denoiser = Denoiser(Smooth(), FlowSchedule(shift), VelocityParameterization())
    actual = MSELoss(UniformDensity(), UnitWeighting())(denoiser, x_0, generator=Generator().manual_seed(2)).loss
    generator = Generator().manual_seed(2)
    t = (1 - torch.rand(16, 1, 1, 1, generator=generator, dtype=torch.float64)).clamp(min=1e-3)
    eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    u = shift * t / (1 + (shift - 1) * t)
    error = Smooth()((1 - u) * x_0 + u * eps, 1000 * u) - (eps - x_0)
    torch.testing.assert_close(actual, error.square().mean((1, 2, 3)), rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", [UnitWeighting(), MinSNRWeighting()])
@pytest.mark.parametrize("huber", [0.1, 0.6, 50.0])
def test_huber_continues_as_a_straight_line(huber: float, weighting: Weighting) -> None:
    """e^2 up to |e| = huber, 2 huber |e| - huber^2 beyond it: a line that continues the square and its slope."""
    denoiser, x_0 = Denoiser(Smooth(), build("schedule", "cosine"), VParameterization()), images(16, torch.float64)
    actual = MSELoss(UniformDensity(), weighting, huber)(denoiser, x_0, generator=Generator().manual_seed(4)).loss
    generator = Generator().manual_seed(4)
    t = torch.ceil((1 - torch.rand(16, 1, 1, 1, generator=generator, dtype=torch.float64)) * T) / T
    x_t = denoiser.schedule.add_noise(x_0, torch.randn(x_0.shape, generator=generator, dtype=torch.float64), t)
    expected, p = [], denoiser(x_t, t)
    for target, output, weight in zip(
        p.target(x_0), p.output, weight_of(weighting, denoiser, t).flatten().tolist(), strict=True
    ):
        errors = (target - output).abs().flatten().tolist()
        bent = [error**2 if error <= huber else 2 * huber * error - huber**2 for error in errors]
        expected.append(weight * sum(bent) / len(bent))
    assert actual.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("huber", [0.0, -1.0])
def test_a_huber_that_is_not_positive_is_refused(huber: float) -> None:
    with pytest.raises(ValueError, match=f"loss.huber .* must be positive, got {huber}"):
        MSELoss(UniformDensity(), UnitWeighting(), huber)


@pytest.mark.parametrize("loss", [MSELoss, UncertaintyLoss])
def test_a_variance_that_would_not_be_trained_is_refused(loss: type[MSELoss]) -> None:
    schedule = LinearSchedule()
    with pytest.raises(ValueError, match=f"learn_variance=true, but {loss.__name__} does not train it"):
        loss(UniformDensity(), UnitWeighting()).check(Denoiser(Both(), schedule, EpsParameterization()))
    loss(UniformDensity(), UnitWeighting()).check(Denoiser(Smooth(), schedule, EpsParameterization()))


def uncertain(seed: int) -> UncertaintyLoss:
    """With a head that says something."""
    loss = UncertaintyLoss(UniformDensity(), SNRWeighting())
    nn.init.normal_(loss.head.weight, std=0.05, generator=Generator().manual_seed(seed))
    return loss


def test_uncertainty_divides_the_error_by_what_it_expects() -> None:
    """err exp(-u) + u, u being 0 before training (Karras et al. 2024, eq. 14)."""
    denoiser, x_0 = Denoiser(Smooth(), build("schedule", "linear"), EpsParameterization()), images(16, torch.float64)
    plain = MSELoss(UniformDensity(), SNRWeighting())(denoiser, x_0, generator=Generator().manual_seed(4))
    for loss in (UncertaintyLoss(UniformDensity(), SNRWeighting()), uncertain(1)):
        terms = loss(denoiser, x_0, generator=Generator().manual_seed(4))
        u = loss.log_loss(denoiser.schedule.log_snr(terms.t)).double()
        assert torch.equal(terms.parts["mse"], plain.loss)
        torch.testing.assert_close(terms.loss, plain.loss / u.exp() + u, rtol=1e-12, atol=0)
        assert bool((u == 0).all()) == bool((loss.head.weight == 0).all())
    assert float(u.detach().std()) > 0.1


def test_uncertainty_is_a_function_of_the_ratio_of_noise_to_signal() -> None:
    """The same for schedules that reach it at other times; at pure noise, finite."""
    loss, noise = uncertain(2), torch.tensor([-3.0, -1.0, 0.0, 1.5], dtype=torch.float64)
    answers = []
    for name in ("vp", "flow", "edm", "linear"):
        schedule = build("schedule", name)
        answers.append(loss.log_loss(schedule.log_snr(schedule.time(-2 * noise))))
    assert float(answers[0].detach().std()) > 0.1
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=0, atol=1e-5)
    for schedule in (FlowSchedule(), CosineSchedule(zero_terminal_snr=True)):
        assert loss.log_loss(schedule.log_snr(torch.ones(1))).isfinite().all()


def test_uncertainty_resumes_from_a_checkpoint() -> None:
    """Its random features are the same in every process, and only its head is saved."""
    log_snr = LinearSchedule().log_snr(torch.linspace(0.01, 1, 50))
    trained, restored = uncertain(3), UncertaintyLoss(UniformDensity(), SNRWeighting())
    assert list(trained.state_dict()) == ["head.weight"]
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored.log_loss(log_snr), trained.log_loss(log_snr))


def test_uncertainty_learns_the_logarithm_of_the_loss() -> None:
    """Alone, of a network whose error is known exactly at each time: to 0.1 everywhere, from 2 away."""
    torch.manual_seed(0)
    denoiser, loss = Denoiser(Constant(), build("schedule", "vp"), X0Parameterization()), uncertain(0)
    nn.init.zeros_(loss.head.weight)
    loss.weighting = UnitWeighting()
    optimizer, generator = torch.optim.Adam(loss.parameters(), lr=0.03), Generator().manual_seed(0)
    for _ in range(250):
        optimizer.zero_grad()
        loss(denoiser, torch.zeros(64, 1, 1, 1), generator=generator).loss.mean().backward()
        optimizer.step()
    t = torch.linspace(0.01, 1, 100)
    assert float(log_error(t).abs().max()) > 2
    torch.testing.assert_close(loss.log_loss(denoiser.schedule.log_snr(t)), log_error(t), rtol=0, atol=0.1)


LOSSES = ["mse", "uncertainty", "hybrid", "vlb", "vlb_large"]


def trainable(name: str, density: Density) -> tuple[Loss, nn.Module]:
    """The loss `name`, and a network that it can train."""
    if name == "mse":
        return MSELoss(density, UnitWeighting()), Smooth()
    if name == "uncertainty":
        loss = UncertaintyLoss(density, UnitWeighting())
        nn.init.normal_(loss.head.weight, std=0.05, generator=Generator().manual_seed(1))
        return loss, Smooth()
    if name == "hybrid":
        return HybridLoss(density, UnitWeighting()), Both()
    return (VLBLoss(density), Both()) if name == "vlb" else (VLBLoss(density, "large"), Smooth())


def every_term(terms: LossTerms) -> list[Tensor]:
    return [terms.loss, terms.t, *terms.parts.values()]


def test_every_loss_is_here() -> None:
    assert set(members("loss")) <= set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_come_from_the_generator_one_per_image(name: str) -> None:
    loss, network = trainable(name, UniformDensity())
    denoiser, x_0 = Denoiser(network, build("schedule", "linear"), EpsParameterization()), images(16, torch.float32)
    loss.check(denoiser)
    before = torch.get_rng_state()
    first, same, other = (loss(denoiser, x_0, generator=Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.parts.keys() == same.parts.keys()
    for values, again in zip(every_term(first), every_term(same), strict=True):
        assert values.shape == (16,)
        assert torch.equal(values, again)
    assert (first.loss != other.loss).any() and (first.t != other.t).any()
    changed = images(16, torch.float32)
    changed[3] *= -1
    terms = loss(denoiser, changed, generator=Generator().manual_seed(1))
    assert torch.equal(terms.t, first.t)
    assert (terms.loss != first.loss).nonzero().tolist() == [[3]]


class Remembering(ImportanceDensity):
    """Keeps the last losses that it was told."""

    def record(self, t: Tensor, loss: Tensor) -> None:
        self.told = t.flatten(), loss
        super().record(t, loss)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_corrected_by_the_chance_that_their_times_were_drawn_with(name: str) -> None:
    """Not by the chance that they have after this batch: a large loss would count for less for being large."""
    density = Remembering(10, 2)
    for _ in range(2):
        density.record((torch.arange(10) + 0.5) / 10, torch.arange(1.0, 11.0))
    before = copy.deepcopy(density)
    loss, network = trainable(name, density)
    denoiser, x_0 = Denoiser(network, build("schedule", "linear"), EpsParameterization()), images(64, torch.float32)
    terms = loss(denoiser, x_0, generator=Generator().manual_seed(6))
    t, told = density.told
    assert torch.equal(t, terms.t)
    torch.testing.assert_close(terms.loss, told * before.correction(t))
    assert (density.probabilities() - before.probabilities()).abs().max() > 1e-3


def test_each_image_has_its_class() -> None:
    class Labelled(Fake):
        num_classes = 10

        def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
            assert condition.label is not None
            self.condition = condition
            return x + condition.label.view(-1, 1, 1, 1)

    condition, network = Condition(torch.arange(10)), Labelled()
    denoiser = Denoiser(network, build("schedule", "linear"), EpsParameterization())
    MSELoss(UniformDensity(), UnitWeighting())(denoiser, images(10, torch.float32), condition)
    assert network.condition is condition


def test_uncertainty_s_features_are_waves_of_random_frequency_and_phase() -> None:
    """sqrt(2) cos(2 pi (f x + phase)), f ~ N(0, 1): at x and y their mean product is exp(-2 pi^2 (x - y)^2).

    They never change: a checkpoint has what a linear layer makes of them, and not themselves.
    """
    loss = UncertaintyLoss(UniformDensity(), UnitWeighting(), channels=4096)
    level = torch.linspace(-0.5, 0.5, 11)  # log(sigma / alpha) / 4
    seen: list[Tensor] = []
    loss.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss.log_loss(FlowSchedule().log_snr((4 * level).sigmoid()))
    product = torch.exp(-2 * math.pi**2 * (level[:, None] - level) ** 2)
    assert (seen[0] @ seen[0].T / 4096 - product).abs().max() < 5 / 4096**0.5  # 5 standard errors at most

    loss = UncertaintyLoss(UniformDensity(), UnitWeighting(), channels=4)
    loss.head.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    values = loss.log_loss(FlowSchedule().log_snr(torch.tensor([0.3, 1.0]))).tolist()
    assert values == pytest.approx([-6.421869, 3.100449], rel=1e-4)
