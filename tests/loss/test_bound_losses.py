"""The losses that train on the variational bound, against literal formulas; what may be trained with them."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal, kl_divergence

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density, ImportanceDensity, UniformDensity
from diffusion_lit.loss import HybridLoss, Loss, MSELoss, VLBLoss
from diffusion_lit.parameterization import EpsParameterization, VParameterization, X0Parameterization
from diffusion_lit.schedule import DiscreteSchedule, Schedule
from diffusion_lit.weighting import MinSNRWeighting, UnitWeighting
from tests.analytic import Fake, build, grid_times, members, weight_of

SCHEDULES = members("schedule", DiscreteSchedule)
CONTINUOUS = [name for name in members("schedule") if name not in SCHEDULES]
T = 1000
STEPS = [1, 1, 2, 3, 50, 500, 999, 1000]


class Fixed(Fake):
    """A network that says one thing, of which gradients can be taken."""

    def __init__(self, output: Tensor, learn_variance: bool) -> None:
        super().__init__()
        self.output = output
        self.learn_variance = learn_variance

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.output


class At(Density):
    """The times it is given."""

    def __init__(self, t: Tensor) -> None:
        super().__init__()
        self.t = t

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        return self.t


def images() -> Tensor:
    """Of 8 bits, with both ends among their levels."""
    levels = torch.randint(256, (len(STEPS), 1, 2, 3), generator=Generator().manual_seed(1))
    levels[:, 0, 0, 0], levels[:, 0, 1, 2] = 0, 255
    return levels.double() / 127.5 - 1


def noise() -> Tensor:
    return torch.randn(images().shape, generator=Generator().manual_seed(4), dtype=torch.float64)


def question(schedule: DiscreteSchedule, learn_variance: bool) -> Denoiser:
    """A denoiser of x_0 that errs by half of the noise or a tenth, with variances in and a little beyond [-1, 1]."""
    generator = Generator().manual_seed(2)
    x_0 = images()
    error = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    output = x_0 + (schedule.sigma(grid_times(schedule, STEPS)) / 2).clamp(max=0.1) * error
    if learn_variance:
        output = torch.cat([output, 2.4 * torch.rand(x_0.shape, generator=generator, dtype=torch.float64) - 1.2], 1)
    return Denoiser(Fixed(output.requires_grad_(), learn_variance), schedule, X0Parameterization())


def literal_bound(schedule: DiscreteSchedule, x_t: Tensor, output: Tensor, variance: str) -> Tensor:
    """T L_t in bits/dim of each image, in beta form (Ho et al. 2020, eqs. 7, 8, 13; Nichol & Dhariwal 2021, eq. 15)."""
    terms = []
    for step, image, noisy, said in zip(STEPS, images(), x_t, output, strict=True):
        beta, abar = float(schedule.betas[step - 1]), float(schedule.abar[step - 1])
        abar_prev = float(schedule.abar[step - 2]) if step > 1 else 1.0
        on_x_0 = math.sqrt(abar_prev) * beta / (1 - abar)
        on_x_t = math.sqrt(1 - beta) * (1 - abar_prev) / (1 - abar)
        # The first step's is the second's: its own is 0.
        small = float(schedule.posterior_variance[max(step - 1, 1)])
        if variance == "learned":
            share = (said[1:] + 1) / 2
            spread = torch.exp((1 - share) * math.log(small) + share * math.log(beta)).sqrt()
        else:
            spread = torch.full_like(image, math.sqrt(beta if variance == "large" and step > 1 else small))
        model = Normal(on_x_0 * said[:1] + on_x_t * noisy, spread)
        if step > 1:
            term = kl_divergence(Normal(on_x_0 * image + on_x_t * noisy, math.sqrt(small)), model)
        else:
            above = torch.where(image > 0.999, 1.0, model.cdf(image + 1 / 255))
            below = torch.where(image < -0.999, 0.0, model.cdf(image - 1 / 255))
            term = -(above - below).log()
        terms.append(T * term.mean() / math.log(2))
    return torch.stack(terms)


def noisy(schedule: DiscreteSchedule) -> Tensor:
    return schedule.add_noise(images(), noise(), grid_times(schedule, STEPS))


def network_of(denoiser: Denoiser) -> Fixed:
    assert isinstance(denoiser.network, Fixed)
    return denoiser.network


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_vlb_is_the_bound_and_trains_mean_and_variance(name: str, variance: str) -> None:
    """The value and the gradient by each of the network's outputs."""
    schedule = build("schedule", name)
    denoiser = question(schedule, variance == "learned")
    output = network_of(denoiser).output
    loss = VLBLoss(At(grid_times(schedule, STEPS)), variance)
    loss.check(denoiser)
    actual = loss(denoiser, images(), generator=Generator().manual_seed(4)).loss
    expected = literal_bound(schedule, noisy(schedule), output, variance)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    gradient, wanted = (torch.autograd.grad(total.sum(), output)[0] for total in (actual, expected))
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-8)
    assert (gradient != 0).all()


@pytest.mark.parametrize("scale", [0.001, 0.5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_hybrid_is_the_squared_error_and_a_little_of_the_bound(name: str, scale: float) -> None:
    schedule, weighting = build("schedule", name), MinSNRWeighting()
    denoiser, t = question(schedule, learn_variance=True), grid_times(schedule, STEPS)
    loss = HybridLoss(At(t), weighting, scale=scale)
    loss.check(denoiser)
    terms = loss(denoiser, images(), generator=Generator().manual_seed(4))
    output = network_of(denoiser).output
    mse = (weight_of(weighting, denoiser, t) * (images() - output[:, :1]) ** 2).mean((1, 2, 3))
    bound = literal_bound(schedule, noisy(schedule), output, "learned")
    torch.testing.assert_close(terms.parts["mse"], mse, rtol=1e-9, atol=0)
    torch.testing.assert_close(terms.parts["bound"], bound, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(terms.loss, mse + scale * bound, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_hybrid_trains_the_mean_by_the_error_and_the_variance_by_the_bound(name: str) -> None:
    """Exactly: the other's gradient is 0, not small."""
    schedule = build("schedule", name)
    denoiser = question(schedule, learn_variance=True)
    output = network_of(denoiser).output
    terms = HybridLoss(At(grid_times(schedule, STEPS)), UnitWeighting())(
        denoiser, images(), generator=Generator().manual_seed(4)
    )
    bound, mse, loss = (
        torch.autograd.grad(term.sum(), output, retain_graph=True)[0]
        for term in (terms.parts["bound"], terms.parts["mse"], terms.loss)
    )
    assert torch.equal(bound[:, :1], torch.zeros_like(bound[:, :1]))
    assert torch.equal(mse[:, 1:], torch.zeros_like(mse[:, 1:]))
    expected = literal_bound(schedule, noisy(schedule), output, "learned")
    (wanted,) = torch.autograd.grad(expected.sum(), output)
    torch.testing.assert_close(bound[:, 1:], wanted[:, 1:], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(mse[:, :1], (output[:, :1] - images()) / 3)
    torch.testing.assert_close(loss, torch.cat([mse[:, :1], 0.001 * bound[:, 1:]], 1))
    assert (wanted[:, :1].abs().amax((1, 2, 3)) > 0).all()  # which is what is held back


def test_hybrid_bends_its_error_as_mse_does() -> None:
    schedule = build("schedule", "linear")
    denoiser, t = question(schedule, learn_variance=True), grid_times(schedule, STEPS)
    hybrid, mse = HybridLoss(At(t), UnitWeighting(), huber=0.002), MSELoss(At(t), UnitWeighting(), huber=0.002)
    terms = hybrid(denoiser, images(), generator=Generator().manual_seed(4))
    expected = mse(denoiser, images(), generator=Generator().manual_seed(4)).loss
    assert torch.equal(terms.parts["mse"], expected)
    assert (expected < (images() - network_of(denoiser).output[:, :1]).square().mean((1, 2, 3))).all()


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_gradients_are_finite_at_every_step(name: str, zero_terminal_snr: bool) -> None:
    """In float32, by a network that knows nothing: its x_0 is far from any image where little signal is left."""
    schedule = build("schedule", name, zero_terminal_snr=zero_terminal_snr)
    t = (torch.arange(1, T + 1) / T).view(-1, 1, 1, 1)
    x_0 = torch.randint(256, (T, 1, 2, 2), generator=Generator().manual_seed(1)) / 127.5 - 1
    output = 3 * torch.randn(T, 2, 2, 2, generator=Generator().manual_seed(2))
    member = VParameterization() if zero_terminal_snr else EpsParameterization()
    denoiser = Denoiser(Fixed(output.requires_grad_(), True), schedule, member)
    for loss in (VLBLoss(At(t)), HybridLoss(At(t), UnitWeighting())):
        total = loss(denoiser, x_0, generator=Generator().manual_seed(3)).loss
        (gradient,) = torch.autograd.grad(total.sum(), output)
        assert total.isfinite().all()
        assert gradient.isfinite().all()
        assert (gradient.abs().amax((1, 2, 3)) > 0).all()


def denoiser_with(learn_variance: bool, schedule: str = "linear") -> Denoiser:
    return Denoiser(Fixed(torch.zeros(()), learn_variance), build("schedule", schedule), VParameterization())


@pytest.mark.parametrize(
    ("loss", "learn_variance"),
    [
        (HybridLoss(UniformDensity(), UnitWeighting()), False),
        (VLBLoss(UniformDensity()), False),
        (VLBLoss(UniformDensity(), "small"), True),
        (VLBLoss(UniformDensity(), "large"), True),
    ],
)
def test_a_network_with_the_wrong_outputs_is_refused(loss: Loss, learn_variance: bool) -> None:
    wanted = str(not learn_variance).lower()
    message = rf"{type(loss).__name__} with variance=\w+ needs model.learn_variance={wanted}"
    with pytest.raises(ValueError, match=message):
        loss.check(denoiser_with(learn_variance))
    loss.check(denoiser_with(not learn_variance))


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("loss", [HybridLoss(UniformDensity(), UnitWeighting()), VLBLoss(UniformDensity())])
def test_continuous_schedules_are_refused(loss: Loss, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{type(loss).__name__} sums over the steps of a chain.*loss=mse or unc"):
        loss.check(denoiser_with(True, name))


@pytest.mark.parametrize("loss", [HybridLoss, VLBLoss, MSELoss])
def test_a_density_of_other_steps_is_refused(loss: type[Loss]) -> None:
    weighting = () if loss is VLBLoss else (UnitWeighting(),)
    denoiser = denoiser_with(loss is not MSELoss)
    with pytest.raises(ValueError, match="num_bins=300 does not divide the schedule's 1000 steps"):
        loss(ImportanceDensity(300), *weighting).check(denoiser)
    loss(ImportanceDensity(250), *weighting).check(denoiser)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"loss.variance must be one of small, large, learned, got 'tiny'"):
        VLBLoss(UniformDensity(), "tiny")
    for scale in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"loss.scale must be positive, got {scale}"):
            HybridLoss(UniformDensity(), UnitWeighting(), scale=scale)
    with pytest.raises(ValueError, match=r"loss.huber .* got -1.0"):
        HybridLoss(UniformDensity(), UnitWeighting(), huber=-1.0)
