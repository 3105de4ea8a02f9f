"""The published code of EDM and of Improved DDPM: the numbers it gives, in tests/reference, against ours."""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from diffusion_lit.bound import bound_term, discretized_gaussian_nll
from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density, ImportanceDensity, LognormalDensity
from diffusion_lit.likelihood import variational_bound
from diffusion_lit.loss import HybridLoss, MSELoss, VLBLoss
from diffusion_lit.parameterization import (
    EDMParameterization,
    EpsParameterization,
    Parameterization,
    X0Parameterization,
)
from diffusion_lit.sampler import DDPMSampler, EulerSampler, HeunSampler
from diffusion_lit.schedule import CosineSchedule, DiscreteSchedule, EDMSchedule, LinearSchedule, Schedule, VPSchedule
from diffusion_lit.weighting import UnitWeighting
from tests.analytic import Fake, MixtureDenoiser

FOLDER = Path(__file__).parent / "reference"
T = 40
TIMES = torch.arange(1, T + 1, dtype=torch.float64).view(-1, 1, 1, 1) / T
BEFORE = torch.arange(T, dtype=torch.float64).view(-1, 1, 1, 1) / T
SCHEDULES = ("linear", "cosine")
PARAMETERIZATIONS: dict[str, Parameterization] = {"eps": EpsParameterization(), "x_start": X0Parameterization()}
VARIANCES = {"learned_range": "learned", "fixed_small": "small", "fixed_large": "large"}
CUT = -27.6
"""log 1e-12: the published decoder gives no pixel less."""


@cache
def numbers(name: str) -> Any:
    """What tests/reference/NAME.json holds; the README beside it says how it was made."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pixels(levels: Any) -> Tensor:
    """The images in [-1, 1] of 8-bit `levels`."""
    return tensor(levels) / 127.5 - 1


def close(actual: Tensor, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal to `tolerance`, relative to the largest of `expected`: both are float64, and differ by rounding."""
    expected = tensor(expected)
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def draws(*batches: Any) -> Callable[[], Tensor]:
    """A source of noise that gives `batches` one after the other."""
    left: Iterator[Any] = iter(batches)
    return lambda: tensor(next(left))


def give(monkeypatch: pytest.MonkeyPatch, *batches: Any) -> None:
    """Make `batches` the next standard normal draws that our code makes."""
    source = draws(*batches)

    def randn(shape: Iterable[int], **_: Any) -> Tensor:
        return source().view(*shape)

    monkeypatch.setattr(torch, "randn", randn)


def mixture() -> MixtureDenoiser:
    """The denoiser that EDM's samplers were given."""
    means = tensor([[0.6, -0.2, 0.1, 0.4], [-0.5, 0.3, 0.2, -0.6]]).view(2, 1, 2, 2)
    return MixtureDenoiser(EDMSchedule(), means, tensor([0.3, 0.3]), tensor([0.3, 0.7]), EDMParameterization())


@pytest.mark.parametrize(
    ("kind", "num_steps"),
    [*((kind, n) for kind in ("deterministic", "churn", "euler") for n in (5, 10, 18)), ("churn_uncapped", 18)],
)
def test_edm_sampler(kind: str, num_steps: int) -> None:
    """The noise levels, those after churn, and the image after each step; to 1e-7, as 1 + gamma is float32 in ours."""
    samplers = numbers("edm")["sampler"]
    recorded, settings = samplers[kind][str(num_steps)], samplers["settings"].get(kind)
    names = {"churn": "S_churn", "churn_min": "S_min", "churn_max": "S_max", "churn_noise": "S_noise"}
    churn = {} if settings is None else {ours: settings[theirs] for ours, theirs in names.items()}
    sampler = (EulerSampler if kind == "euler" else HeunSampler)(num_steps, **churn)
    denoiser, latents = mixture(), numbers("edm")["latents"]
    schedule, times = denoiser.schedule, sampler.times(denoiser.schedule)
    close(schedule.sigma(times), recorded["t_steps"])
    _, later = sampler.churned(
        sampler.walk(denoiser, noise=lambda: torch.zeros(num_steps)), torch.zeros(num_steps), times[:-1]
    )
    close(schedule.sigma(later), recorded["t_hat"], 1e-7)
    states: list[Tensor] = []
    final = sampler(
        denoiser, draws(latents, *recorded.get("noise", [])), UNCONDITIONAL, lambda s, x_s: states.append(x_s)
    )
    for actual, expected in zip(states, recorded["x"][1:], strict=True):
        close(actual, expected, 1e-7)
    close(final, recorded["final"], 1e-7)


@pytest.mark.parametrize(
    ("name", "schedule", "parameterization"),
    [
        ("edm", EDMSchedule(), EDMParameterization()),
        ("vp", VPSchedule(), EpsParameterization()),
        ("iddpm", CosineSchedule(1000, clip_min=1e-12, clip_max=0.999), EpsParameterization()),
    ],
)
def test_preconditioning(name: str, schedule: Schedule, parameterization: Parameterization) -> None:
    """EDM's coefficients are of x_t / alpha. (Its `ve` tells the network another number and scales nothing.)"""
    recorded = numbers("edm")["precond"]
    t = schedule.time(-2 * tensor(recorded["sigma"]).log())
    c_skip, c_out, c_in = parameterization(schedule.alpha(t), schedule.sigma(t))
    close(c_skip * schedule.alpha(t), recorded[name]["c_skip"])
    close(c_out, recorded[name]["c_out"])
    close(c_in * schedule.alpha(t), recorded[name]["c_in"])
    if name != "iddpm":
        close(schedule.c_noise(t), recorded[name]["c_noise"])


def test_iddpm_levels() -> None:
    """The levels that EDM rounds to are the cosine chain's steps, and their numbers those its network is told."""
    recorded = numbers("edm")["precond"]["iddpm"]
    schedule = CosineSchedule(1000, clip_min=1e-12, clip_max=0.999)
    t = schedule.time(-2 * tensor(recorded["round_sigma"]).log())
    close(1000 * t - 1, recorded["c_noise"])  # -1 is clean data
    ends = schedule.log_snr(tensor([1 / 1000, 1.0]))
    close((-ends / 2).exp(), [recorded["sigma_min"], recorded["sigma_max"]])


def test_vp_levels() -> None:
    recorded = numbers("edm")["precond"]["vp"]
    close((-VPSchedule().log_snr(tensor([1e-5, 1.0])) / 2).exp(), [recorded["sigma_min"], recorded["sigma_max"]])


class Sine(Fake):
    """The network inside EDM's loss."""

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return torch.sin(2 * x) + 0.1 * c_noise.view(-1, 1, 1, 1)


def test_edm_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights cancel in the network's output space, and its noise levels are the density's."""
    recorded = numbers("edm")["loss"]
    schedule = EDMSchedule()
    denoiser = Denoiser(Sine(), schedule, EDMParameterization(recorded["sigma_data"]))
    give(monkeypatch, recorded["rnd_normal"], recorded["noise"])
    density = LognormalDensity(recorded["P_mean"], recorded["P_std"])
    terms = MSELoss(density, UnitWeighting())(denoiser, pixels(recorded["levels"]))
    t = terms.t
    close(schedule.sigma(t), recorded["sigma"])
    close(terms.loss, tensor(recorded["loss"]).mean((1, 2, 3)).tolist())
    close(denoiser(tensor(recorded["noisy"]), t.view(-1, 1, 1, 1)).x_0, recorded["denoised"])


class Model(Fake):
    """The network that Improved DDPM's code was given; both count its steps from 0."""

    def __init__(self, learn_variance: bool) -> None:
        super().__init__()
        self.learn_variance = learn_variance
        self.mean_scale = nn.Parameter(tensor(0.8))
        self.variance_scale = nn.Parameter(tensor(1.0))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        t = c_noise.view(-1, 1, 1, 1)
        output = self.mean_scale * x * torch.cos(t / 50) + 0.1 * torch.sin(3 * x)
        if not self.learn_variance:
            return output
        return torch.cat([output, self.variance_scale * torch.sin(5 * x + 0.2 * t)], dim=1)


class EveryStep(Density):
    """Image i at step i."""

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        return TIMES


def improved(*keys: str) -> Any:
    """A part of Improved DDPM's numbers."""
    part = numbers("improved_diffusion")
    for key in keys:
        part = part[key]
    return part


def chain(name: str) -> DiscreteSchedule:
    return LinearSchedule(T, 0.0025, 0.5) if name == "linear" else CosineSchedule(T, clip_max=0.999)


def model(name: str, mean: str, variance: str) -> Denoiser:
    return Denoiser(Model(variance == "learned_range"), chain(name), PARAMETERIZATIONS[mean])


def decoded(part: Any, *keys: str) -> Any:
    """The values at t = 0..39 that `keys` of `part` lead to, the first by the exact normal distribution function."""
    values, first = part, part["exact_decoder"]
    for key in keys:
        values, first = values[key], first[key]
    return [first, *values[1:]]


@pytest.mark.parametrize("name", SCHEDULES)
def test_forward_chain(name: str) -> None:
    """The prior to 1e-5 only: theirs is N(0, 1), ours N(0, sigma_T^2), from which sampling starts."""
    recorded, schedule = improved("schedule", name), chain(name)
    x_0 = pixels(improved("levels"))
    close(schedule.betas, recorded["betas"])
    close(schedule.abar, recorded["alphas_cumprod"])
    x_t = schedule.add_noise(x_0, tensor(improved("noise")), TIMES)
    close(x_t, recorded["x_t"])
    mean, variance = schedule.posterior(x_0, x_t, BEFORE, TIMES)
    close(mean, recorded["q_posterior"]["mean"])
    close(variance.flatten(), recorded["q_posterior"]["variance"])
    close(schedule.log_variance(BEFORE, TIMES, 0).flatten(), recorded["q_posterior"]["log_variance_clipped"])
    bound = variational_bound(model(name, "eps", "fixed_small"), x_0, lambda: torch.zeros_like(x_0))
    close(bound.prior, recorded["prior_bpd"], 1e-5)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("mean", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_reverse_step(name: str, mean: str, variance: str) -> None:
    """p(x_s | x_t) at each step, and its term of the bound."""
    recorded = improved("schedule", name, mean, variance)
    denoiser, x_t = model(name, mean, variance), tensor(improved("schedule", name, "x_t"))
    p = denoiser(x_t, TIMES)
    close(p.x_0, recorded["pred_xstart"])
    close(denoiser.schedule.posterior(p.x_0, x_t, BEFORE, TIMES)[0], recorded["mean"])
    log_variance = p.log_variance(BEFORE, VARIANCES[variance]).squeeze()
    if variance == "learned_range":
        log_variance = log_variance.view(T, 1, 2, 2)
    terms = bound_term(p, pixels(improved("levels")), BEFORE, VARIANCES[variance])
    close(log_variance, recorded["log_variance"])
    close(terms, decoded(recorded, "vb"))
    close(log_variance[1:].exp(), recorded["variance"][1:])


def test_clipped_reverse_step() -> None:
    recorded = improved("schedule", "linear", "eps", "learned_range")
    denoiser, x_t = model("linear", "eps", "learned_range"), tensor(improved("schedule", "linear", "x_t"))
    p = denoiser(x_t, TIMES).clip(1.0)
    close(p.x_0, recorded["clipped"]["pred_xstart"])
    close(denoiser.schedule.posterior(p.x_0, x_t, BEFORE, TIMES)[0], recorded["clipped"]["mean"])
    terms = bound_term(p, pixels(improved("levels")), BEFORE, "learned")
    close(terms, decoded(recorded, "clipped", "vb"))


@pytest.mark.parametrize("mean", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_hybrid_loss(name: str, mean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image's loss, and the gradient: the bound's is stopped where it would train the mean."""
    recorded, denoiser = improved("schedule", name, mean, "learned_range"), model(name, mean, "learned_range")
    give(monkeypatch, improved("noise"))
    terms = HybridLoss(EveryStep(), UnitWeighting())(denoiser, pixels(improved("levels")))
    close(terms.parts["mse"], recorded["rescaled_mse"]["mse"])
    close(terms.parts["bound"] / 1000, decoded(recorded, "rescaled_mse", "vb"))
    close(terms.loss, decoded(recorded, "rescaled_mse", "loss"))
    check_gradients(denoiser, terms.loss, recorded["exact_decoder"]["rescaled_mse"])


@pytest.mark.parametrize("mean", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_vlb_loss(name: str, mean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, denoiser = improved("schedule", name, mean, "learned_range"), model(name, mean, "learned_range")
    give(monkeypatch, improved("noise"))
    terms = VLBLoss(EveryStep())(denoiser, pixels(improved("levels")))
    close(terms.loss, decoded(recorded, "rescaled_kl", "loss"))
    check_gradients(denoiser, terms.loss, recorded["exact_decoder"]["rescaled_kl"])


def check_gradients(denoiser: Denoiser, loss: Tensor, recorded: dict[str, Any]) -> None:
    network = denoiser.network
    gradients = torch.autograd.grad(loss.mean(), (network.mean_scale, network.variance_scale))
    for gradient, key in zip(gradients, ("grad_mean_scale", "grad_var_scale"), strict=True):
        close(gradient, recorded[key])


def test_variational_bound() -> None:
    recorded, denoiser = improved("bpd_loop"), model("linear", "eps", "learned_range")
    bound = variational_bound(denoiser, pixels(recorded["levels"]), draws(*recorded["noise"]), variance="learned")
    close(bound.prior, recorded["prior_bpd"], 1e-5)
    close(bound.terms[:, :-1], tensor(recorded["vb"])[:, :-1].tolist())
    close(bound.terms[:, -1], recorded["exact_decoder"]["vb"])
    close(bound.total, recorded["exact_decoder"]["total_bpd"])


def decoder_grid() -> tuple[Tensor, Tensor, Tensor]:
    """Our log probabilities on the grid of levels, means and spreads, theirs, and theirs by the exact function."""
    recorded = improved("decoder")
    axes = pixels(recorded["levels"]), tensor(recorded["means"]), tensor(recorded["log_scales"])
    ours = -discretized_gaussian_nll(*torch.meshgrid(*axes, indexing="ij"))
    return ours, tensor(recorded["log_probs"]), tensor(recorded["exact_decoder"]["log_probs"])


def test_decoder() -> None:
    """To 1e-5: near the cut of 1e-12, theirs is the difference of two numbers close to 1. Beyond it, ours goes on."""
    ours, _, exact = decoder_grid()
    kept = exact > CUT
    assert kept.sum() > 100
    torch.testing.assert_close(ours[kept], exact[kept], rtol=1e-5, atol=1e-5)
    assert (ours[~kept] <= CUT).all()


def test_how_far_the_published_decoder_is_from_the_exact_one() -> None:
    """Its tanh is within 0.01 nats of a bin's probability down to e^-7, and within 1.5 nats where it is not cut off."""
    ours, published, _ = decoder_grid()
    difference = (ours - published).abs()
    assert difference[ours > -7].max() < 0.01
    assert difference[(ours > CUT) & (published > CUT)].max() < 1.5


@pytest.mark.parametrize("variance", ["learned_range", "fixed_large"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_fewer_steps(name: str, variance: str) -> None:
    """The same schedule on ten of its steps is the shorter chain that theirs builds.

    Not the variance at t = 0, which only the decoder uses: theirs is of the next of the ten steps, ours of the next of
    all. The sample is the mean there.
    """
    spaced, recorded = improved("spaced"), improved("spaced", name)
    denoiser, (times, before) = model(name, "eps", variance), spaced_times()
    schedule, x_t = denoiser.schedule, tensor(recorded["x_t"])
    close(schedule.add_noise(pixels(spaced["levels"]), tensor(spaced["noise_x_t"]), times), recorded["x_t"])
    close(schedule.log_variance(before, times, 1).exp().flatten(), recorded["betas"])
    p = denoiser(x_t, times)
    close(schedule.posterior(p.x_0, x_t, before, times)[0], recorded[variance]["mean"])
    log_variance = p.log_variance(before, VARIANCES[variance])
    close(log_variance[1:].squeeze(), tensor(recorded[variance]["log_variance"])[1:].squeeze().tolist())
    sampler = DDPMSampler(10, variance=VARIANCES[variance])
    walk = sampler.walk(denoiser, noise=draws(spaced["noise"]))
    close(sampler.step(walk, x_t, times, before), recorded[variance]["sample"])


def spaced_times() -> tuple[Tensor, Tensor]:
    """Those of ten steps, from the data on, and the times to which they go."""
    times = (tensor(improved("spaced", "use_timesteps")).view(-1, 1, 1, 1) + 1) / T
    return times, torch.cat([torch.zeros_like(times[:1]), times[:-1]])


@pytest.mark.parametrize("variance", ["learned_range", "fixed_large"])
def test_sampling(variance: str) -> None:
    """A whole chain of ten steps, clipped."""
    recorded, denoiser = improved("spaced", "chain"), model("linear", "eps", variance)
    sampler, noise = DDPMSampler(10, variance=VARIANCES[variance], clip=1.0), draws(*recorded["noise"])
    x, (times, before) = tensor(recorded["start"]), spaced_times()
    walk = sampler.walk(denoiser, noise=noise)
    for t, s, expected in zip(times.flip(0), before.flip(0), recorded[variance], strict=True):
        x = sampler.step(walk, x, t.expand(2, 1, 1, 1), s.expand(2, 1, 1, 1))
        close(x, expected)


def test_importance_sampling() -> None:
    """The chance of each step after each batch of losses; to 1e-6, as the density keeps them in float32."""
    recorded = improved("resampler")
    num = recorded["num_timesteps"]
    density = ImportanceDensity(num, recorded["history_per_term"], recorded["uniform_prob"])
    for update in [{"ts": [], "losses": [], "weights": recorded["weights_at_start"]}, *recorded["updates"]]:
        density.record((tensor(update["ts"]) + 1) / num, tensor(update["losses"]))
        weights = tensor(update["weights"])
        close(density.probabilities().double(), (weights / weights.sum()).tolist(), 1e-6)
