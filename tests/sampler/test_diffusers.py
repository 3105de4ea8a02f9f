"""Our samplers against diffusers' schedulers on the same network, images and noise."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.parameterization import (
    EpsParameterization,
    Parameterization,
    VParameterization,
    X0Parameterization,
)
from diffusion_lit.sampler import DDIMSampler, DDPMSampler
from diffusion_lit.schedule import DiscreteSchedule
from tests.analytic import build, grid_times, members

diffusers = pytest.importorskip("diffusers")

SCHEDULES = members("schedule", DiscreteSchedule)
PREDICTIONS: dict[str, Parameterization] = {
    "epsilon": EpsParameterization(),
    "sample": X0Parameterization(),
    "v_prediction": VParameterization(),
}
SHAPE = (2, 3, 4, 4)
T = 1000


class Network(nn.Module):
    """A smooth function of the image and of the step's number, which both libraries count from 0."""

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.sin(1.5 * x + c_noise.view(-1, 1, 1, 1) / 200)


def normal(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scheduler(kind: str, schedule: DiscreteSchedule, num_steps: int, clip: float | None, **config: str) -> Any:
    """A diffusers scheduler with our betas, taking `num_steps` steps that end where ours do.

    Its tables are float32, and its 1 - abar has lost three digits at the first steps; with tables in float64 what
    is left to compare is the formulas, to rounding.
    """
    theirs = getattr(diffusers, kind)(
        num_train_timesteps=T,
        trained_betas=schedule.betas.tolist(),
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
        timestep_spacing="trailing",
        **config,
    )
    theirs.set_timesteps(num_steps)
    return theirs


def in_float64(theirs: Any, schedule: DiscreteSchedule) -> Any:
    theirs.betas = schedule.betas
    theirs.alphas = 1 - schedule.betas
    theirs.alphas_cumprod = theirs.alphas.cumprod(0)
    theirs.one = theirs.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return theirs


def our_steps(num_steps: int) -> list[int]:
    """The steps i of t = i / T that diffusers calls i - 1, and 0."""
    assert T % num_steps == 0
    return list(range(T, -1, -T // num_steps))


@pytest.mark.parametrize("num_steps", [10, T])
@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_each_ddpm_step_is_diffusers(name: str, prediction: str, clip: float | None, num_steps: int) -> None:
    """Both variances, at the chain's ends and in between, each step from fresh images.

    diffusers adds the large variance's noise in the last step too, unless that step is the chain's own first;
    for us the last step is its mean, which at the data is the estimate of x_0.
    """
    schedule = build("schedule", name)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    for variance in ("small", "large"):
        config = {"variance_type": f"fixed_{variance}", "prediction_type": prediction}
        theirs = in_float64(scheduler("DDPMScheduler", schedule, num_steps, clip, **config), schedule)
        sampler = DDPMSampler(num_steps, variance, clip)
        steps = our_steps(num_steps)
        for place in {0, 1, len(steps) // 2, len(steps) - 3, len(steps) - 2}:
            t, s = steps[place], steps[place + 1]
            x_t = normal(place)
            theirs_next = theirs.step(
                Network()(x_t, torch.tensor([t - 1.0], dtype=torch.float64)),
                t - 1,
                x_t,
                generator=torch.Generator().manual_seed(99),
            )
            expected = theirs_next.prev_sample if s or t == 1 else theirs_next.pred_original_sample
            actual = sampler.step(denoiser, x_t, *grid_times(schedule, [t, s])[:, None], noise=normal(99))
            torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("num_steps", [10, T])
@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_each_ddim_step_is_diffusers(name: str, prediction: str, clip: float | None, num_steps: int) -> None:
    """Without noise, with some and with all of it."""
    schedule = build("schedule", name)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    theirs = in_float64(scheduler("DDIMScheduler", schedule, num_steps, clip, prediction_type=prediction), schedule)
    for eta in (0.0, 0.6, 1.0):
        sampler = DDIMSampler(num_steps, eta, clip)
        steps = our_steps(num_steps)
        for place in {0, 1, len(steps) // 2, len(steps) - 3, len(steps) - 2}:
            t, s = steps[place], steps[place + 1]
            x_t, noise = normal(place), normal(99)
            expected = theirs.step(
                Network()(x_t, torch.tensor([t - 1.0], dtype=torch.float64)),
                t - 1,
                x_t,
                eta=eta,
                use_clipped_model_output=True,
                variance_noise=noise,
            ).prev_sample
            given = noise if sampler.stochastic else None
            actual = sampler.step(denoiser, x_t, *grid_times(schedule, [t, s])[:, None], noise=given)
            torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)


class Drawn:
    """One stream of float32 batches, as `randn(generator=...)` in a loop gives them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self) -> Tensor:
        return torch.randn(SHAPE, generator=self.generator)


def ddpm_runs(name: str, prediction: str, variance: str, num_steps: int) -> tuple[Tensor, Tensor]:
    """Our images and theirs, in float32 with diffusers' own tables, clipped to 1; the last step as above."""
    schedule = build("schedule", name)
    config = {"variance_type": f"fixed_{variance}", "prediction_type": prediction}
    theirs = scheduler("DDPMScheduler", schedule, num_steps, 1.0, **config)
    source = Drawn(0)
    x_t = float(schedule.sqrt_one_minus_abar[-1]) * source()
    for t in theirs.timesteps:
        result = theirs.step(Network()(x_t, t.float()), int(t), x_t, generator=source.generator)
        x_t = result.prev_sample
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    return DDPMSampler(num_steps, variance, clip=1.0)(denoiser, Drawn(0)), result.pred_original_sample


@pytest.mark.parametrize("num_steps", [1, 5, 50])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_whole_ddpm_run_is_diffusers(name: str, prediction: str, variance: str, num_steps: int) -> None:
    """To 2e-5, twice what the rounding of float32 comes to over 50 steps."""
    ours, theirs = ddpm_runs(name, prediction, variance, num_steps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "num_steps"), [*((name, 250) for name in SCHEDULES), ("linear", T)])
def test_a_long_ddpm_run_is_diffusers(name: str, num_steps: int) -> None:
    """To 3e-4: over more and shorter steps the rounding of diffusers' float32 tables adds up."""
    ours, theirs = ddpm_runs(name, "epsilon", "small", num_steps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-4)


@pytest.mark.parametrize("num_steps", [1, 5, 50])
@pytest.mark.parametrize("eta", [0.0, 0.9])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_whole_ddim_run_is_diffusers(name: str, prediction: str, eta: float, num_steps: int) -> None:
    """As for DDPM. Not at eta = 1: there diffusers takes the root of a 0 that float32 can make negative."""
    schedule = build("schedule", name)
    theirs = scheduler("DDIMScheduler", schedule, num_steps, 1.0, prediction_type=prediction)
    source = Drawn(0)
    x_t = float(schedule.sqrt_one_minus_abar[-1]) * source()
    for t in theirs.timesteps:
        x_t = theirs.step(
            Network()(x_t, t.float()),
            int(t),
            x_t,
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=source() if eta else None,
        ).prev_sample
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    actual = DDIMSampler(num_steps, eta, clip=1.0)(denoiser, Drawn(0))
    torch.testing.assert_close(actual, x_t, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noising_is_diffusers(name: str) -> None:
    schedule = build("schedule", name)
    theirs = in_float64(scheduler("DDPMScheduler", schedule, 10, None), schedule)
    x_0, eps = normal(0), normal(1)
    for i, j in pairwise([1, 2, 10, 500, 999, 1000]):
        expected = theirs.add_noise(x_0, eps, torch.tensor([i - 1, j - 1]))
        torch.testing.assert_close(schedule.add_noise(x_0, eps, grid_times(schedule, [i, j])), expected)
