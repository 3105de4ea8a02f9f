"""Our samplers against diffusers' schedulers: the same network, images, noise and times.

diffusers computes in float32, in which 1 - abar loses three digits at the first steps. Here its code mostly runs with
torch.float32 replaced by torch.float64, so that what is left to compare is the formulas; what it gives as it is shipped
is compared to 1e-5. Every difference is relative to the largest pixel of the result.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.parameterization import (
    EDMParameterization,
    EpsParameterization,
    Parameterization,
    VelocityParameterization,
    VParameterization,
    X0Parameterization,
)
from diffusion_lit.sampler import (
    DDIMSampler,
    DDPMSampler,
    DPMpp2MSampler,
    EulerSampler,
    HeunSampler,
    Sampler,
    UniPCSampler,
)
from diffusion_lit.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule, Schedule, spaced_times
from tests.analytic import Fake, build, grid_times, members

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # np.array(a tensor)

SCHEDULES = members("schedule", DiscreteSchedule)
PREDICTIONS: dict[str, Parameterization] = {
    "epsilon": EpsParameterization(),
    "sample": X0Parameterization(),
    "v_prediction": VParameterization(),
}
VARIANCES = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}
CASES = [*((name, "epsilon") for name in SCHEDULES), ("linear", "sample"), ("linear", "v_prediction")]
SHAPE = (2, 3, 4, 4)
T = 1000
EXACT = 1e-8
"""For formulas in float64, a hundred times what their rounding comes to."""
SHIPPED = 1e-5
"""For diffusers as it is, twice what the rounding of float32 comes to over 20 steps."""


class Network(Fake):
    """A smooth function of the image and of the number that both libraries tell it."""

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return torch.sin(1.5 * x + c_noise.view(-1, 1, 1, 1) / 200)


class UncertainNetwork(Network):
    """The same, with a variance between the small and the large one."""

    learn_variance = True

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return torch.cat([super().forward(x, c_noise), torch.cos(x + c_noise.view(-1, 1, 1, 1))], dim=1)


class Float64:
    """A module whose float32 is float64."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, "float64" if name == "float32" else name)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' schedulers, in float64."""
    for kind in KINDS:
        module = sys.modules[getattr(diffusers, kind).__module__]
        monkeypatch.setattr(module, "torch", Float64(torch))
        monkeypatch.setattr(module, "np", Float64(np), raising=False)


in_float64 = pytest.mark.usefixtures("float64")


def normal(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal to `tolerance` times the largest of `expected`, or 1 if that is more."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))


def scheduler(kind: str, schedule: DiscreteSchedule, num_steps: int, prediction: str, **config: Any) -> Any:
    """A diffusers scheduler with our betas, by default with steps as our trailing ones."""
    config = {"timestep_spacing": "trailing", **config}
    theirs = getattr(diffusers, kind)(
        num_train_timesteps=T, trained_betas=schedule.betas.numpy(), prediction_type=prediction, **config
    )
    theirs.set_timesteps(num_steps)
    return theirs


def times_of(theirs: Any) -> Tensor:
    """The times that it visits, float64 [num_steps + 1]: its step i, from 0, is at our (i + 1) / T."""
    steps = torch.as_tensor(theirs.timesteps).double().unique_consecutive()
    return torch.cat([(steps + 1) / T, steps.new_zeros(1)])


def ddpm(
    schedule: DiscreteSchedule, variance: str, num_steps: int, prediction: str, **config: Any
) -> tuple[Network, Any]:
    """A network, and diffusers' DDPM for it."""
    config = {"variance_type": VARIANCES[variance], **config}
    network = UncertainNetwork() if variance == "learned" else Network()
    return network, scheduler("DDPMScheduler", schedule, num_steps, prediction, **config)


def clipping(clip: float | None) -> dict[str, Any]:
    return {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}


@in_float64
@pytest.mark.parametrize(("num_steps", "clip"), [(7, None), (T, 0.8)])
@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_each_ddpm_step_is_diffusers(name: str, prediction: str, num_steps: int, clip: float | None) -> None:
    """All three variances, at the chain's ends and in between, each step from fresh images.

    diffusers adds noise in the last step too, unless that step is the chain's own first; for us the last step is its
    mean, which at the data is the estimate of x_0.
    """
    schedule = build("schedule", name)
    for variance in VARIANCES:
        network, theirs = ddpm(schedule, variance, num_steps, prediction, **clipping(clip))
        sampler, denoiser = (
            DDPMSampler(num_steps, variance=variance, clip=clip),
            Denoiser(network, schedule, PREDICTIONS[prediction]),
        )
        times = times_of(theirs).view(-1, 1, 1, 1, 1)
        for place in {0, 1, num_steps // 2, num_steps - 2, num_steps - 1}:
            step, x_t = int(theirs.timesteps[place]), normal(place)
            output = network(x_t, torch.tensor([step], dtype=torch.float64))
            result = theirs.step(output, step, x_t, generator=torch.Generator().manual_seed(99))
            last = place == num_steps - 1
            expected = result.pred_original_sample if last and step > 0 else result.prev_sample
            actual = sampler.step(sampler.walk(denoiser, noise=lambda: normal(99)), x_t, times[place], times[place + 1])
            close(actual, expected, EXACT)


class Drawn:
    """One stream of batches, as `randn(generator=...)` in a loop gives them."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.dtype = dtype

    def __call__(self) -> Tensor:
        return torch.randn(SHAPE, generator=self.generator, dtype=self.dtype)


def ddpm_runs(
    name: str, variance: str, num_steps: int, prediction: str, dtype: torch.dtype, clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Our images and theirs; the last step as above."""
    schedule = build("schedule", name)
    network, theirs = ddpm(schedule, variance, num_steps, prediction, **clipping(clip))
    source = Drawn(dtype)
    x_t = float(schedule.sigma(torch.ones(1, dtype=torch.float64))) * source()
    for t in theirs.timesteps:
        result = theirs.step(network(x_t, t.to(dtype)), int(t), x_t, generator=source.generator)
        x_t = result.prev_sample
    denoiser = Denoiser(network, schedule, PREDICTIONS[prediction])
    return DDPMSampler(num_steps, variance=variance, clip=clip)(denoiser, Drawn(dtype)), result.pred_original_sample


@in_float64
@pytest.mark.parametrize("num_steps", [1, 10])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_whole_ddpm_run_is_diffusers(name: str, variance: str, num_steps: int) -> None:
    ours, theirs = ddpm_runs(name, variance, num_steps, "v_prediction", torch.float64)
    close(ours, theirs, EXACT)


@in_float64
def test_a_long_ddpm_run_is_diffusers() -> None:
    ours, theirs = ddpm_runs("linear", "small", 250, "epsilon", torch.float64)
    close(ours, theirs, EXACT)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_whole_ddpm_run_is_diffusers_as_shipped(prediction: str, variance: str) -> None:
    ours, theirs = ddpm_runs("linear", variance, 20, prediction, torch.float32, clip=1.0)
    close(ours, theirs, SHIPPED)


@in_float64
@pytest.mark.parametrize(("num_steps", "clip"), [(10, None), (T, 0.8)])
@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_each_ddim_step_is_diffusers(name: str, prediction: str, num_steps: int, clip: float | None) -> None:
    """Without noise, with some and with all of it, each step from fresh images."""
    schedule = build("schedule", name)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    theirs = scheduler("DDIMScheduler", schedule, num_steps, prediction, **clipping(clip))
    times = times_of(theirs).view(-1, 1, 1, 1, 1)
    for eta in (0.0, 0.6, 1.0):
        for place in {0, 1, num_steps // 2, num_steps - 2, num_steps - 1}:
            x_t = normal(place)
            expected = ddim_step(theirs, theirs.timesteps[place], x_t, eta, normal(99))
            sampler = DDIMSampler(num_steps, eta=eta, clip=clip)
            actual = sampler.step(sampler.walk(denoiser, noise=lambda: normal(99)), x_t, times[place], times[place + 1])
            close(actual, expected, EXACT)


def ddim_step(theirs: Any, step: Tensor, x_t: Tensor, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """diffusers' DDIM with eps from the clipped x_0, as ours."""
    output = Network()(x_t, step.to(x_t.dtype))
    given = noise if eta else None
    result = theirs.step(output, int(step), x_t, eta=eta, use_clipped_model_output=True, variance_noise=given)
    return result.prev_sample


def ddim_runs(
    schedule: Schedule, theirs: Any, prediction: str, eta: float, dtype: torch.dtype, clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Our images and theirs."""
    source = Drawn(dtype)
    x_t = float(schedule.sigma(torch.ones(1, dtype=torch.float64))) * source()
    for step in theirs.timesteps:
        x_t = ddim_step(theirs, step, x_t, eta, source() if eta else None)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    return DDIMSampler(len(theirs.timesteps), eta=eta, clip=clip)(denoiser, Drawn(dtype)), x_t


@in_float64
@pytest.mark.parametrize("num_steps", [1, 10])
@pytest.mark.parametrize("eta", [0.0, 0.9])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_whole_ddim_run_is_diffusers(name: str, eta: float, num_steps: int) -> None:
    """Not at eta = 1: there diffusers takes the root of a 0 that rounding can make negative."""
    schedule = build("schedule", name)
    theirs = scheduler("DDIMScheduler", schedule, num_steps, "v_prediction", clip_sample=False)
    close(*ddim_runs(schedule, theirs, "v_prediction", eta, torch.float64), EXACT)


@pytest.mark.parametrize("eta", [0.0, 0.9])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_whole_ddim_run_is_diffusers_as_shipped(prediction: str, eta: float) -> None:
    schedule = build("schedule", "linear")
    theirs = scheduler("DDIMScheduler", schedule, 20, prediction)
    close(*ddim_runs(schedule, theirs, prediction, eta, torch.float32, clip=1.0), SHIPPED)


@in_float64
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_is_diffusers(name: str, prediction: str) -> None:
    """The same betas and the same images; the first step starts where no signal is left."""
    schedule = build("schedule", name, zero_terminal_snr=True)
    config = {"rescale_betas_zero_snr": True, "clip_sample": False}
    theirs = scheduler("DDIMScheduler", build("schedule", name), 10, prediction, **config)
    torch.testing.assert_close(schedule.betas, theirs.betas, rtol=1e-9, atol=1e-12)
    assert theirs.alphas_cumprod[-1] == 0
    for eta in (0.0, 0.9):
        close(*ddim_runs(schedule, theirs, prediction, eta, torch.float64), EXACT)


@in_float64
@pytest.mark.parametrize(("most", "percentile"), [(1.0, None), (1e9, 0.9)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_dynamic_thresholding_is_diffusers(prediction: str, most: float, percentile: float | None) -> None:
    """Imagen's, where diffusers' `sample_max_value` is out of reach; with its default of 1, it cuts off at 1.

    In between it scales by that value at most, and cuts off the rest; ours has no such limit. To 1e-6, as ours takes
    the percentile in float32.
    """
    schedule = build("schedule", "linear")
    config = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": most}
    theirs = scheduler("DDIMScheduler", schedule, 10, prediction, **config)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    sampler, times = DDIMSampler(10, clip=1.0, percentile=percentile), times_of(theirs).view(-1, 1, 1, 1, 1)
    for place, (t, s) in enumerate(pairwise(times)):
        x_t = 2 * normal(place)
        expected = ddim_step(theirs, theirs.timesteps[place], x_t)
        close(sampler.step(sampler.walk(denoiser), x_t, t, s), expected, 1e-6)


@dataclass(frozen=True)
class Solver:
    """A scheduler of diffusers, and our sampler that is the same."""

    kind: str
    sampler: Callable[..., Sampler]
    config: dict[str, Any] = field(default_factory=dict)
    scaled: bool = False
    """Whether its images are x / alpha."""
    calls: int = 1
    """Of the network a step, but for the last, to clean data."""
    lowered: int = 0
    """How many of the last steps it takes at a lower order than ours, which lowers only the last."""


SOLVERS = {
    "euler": Solver("EulerDiscreteScheduler", EulerSampler, scaled=True),
    "heun": Solver("HeunDiscreteScheduler", partial(HeunSampler, scaled=True), scaled=True, calls=2),
    "dpmpp_2m": Solver("DPMSolverMultistepScheduler", DPMpp2MSampler, {"solver_order": 2}),
    "unipc_1": Solver("UniPCMultistepScheduler", partial(UniPCSampler, order=1), {"solver_order": 1}),
    "unipc_2": Solver("UniPCMultistepScheduler", partial(UniPCSampler, order=2), {"solver_order": 2}),
    "unipc_3": Solver("UniPCMultistepScheduler", partial(UniPCSampler, order=3), {"solver_order": 3}, lowered=2),
}
FLOWS = {
    "euler": Solver("FlowMatchEulerDiscreteScheduler", EulerSampler),
    "heun": Solver("FlowMatchHeunDiscreteScheduler", HeunSampler, calls=2),
}
EDMS = {
    "euler": Solver("EDMEulerScheduler", EulerSampler),
    "dpmpp_2m": Solver("EDMDPMSolverMultistepScheduler", DPMpp2MSampler),
}
KINDS = ["DDPMScheduler", "DDIMScheduler", *(s.kind for group in (SOLVERS, FLOWS, EDMS) for s in group.values())]


def their_steps(
    solver: Solver,
    theirs: Any,
    schedule: Schedule,
    times: Tensor,
    start: Tensor,
    fresh: Callable[[int], Tensor] | None = None,
    told: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """x_t and x_s of each step, on our scale.

    Args:
        start: the images at the first time.
        fresh: gives the images of each step instead; what a solver remembers of earlier steps remains.
        told: what the network is told in each step; by default what diffusers says.
    """
    theirs.set_begin_index(0)
    network, x_s, calls = Network(), start, 0
    numbers = theirs.timesteps if told is None else told
    for place, (t, s) in enumerate(pairwise(times)):
        x_t = x_s if fresh is None else fresh(place)
        x = x_t / schedule.alpha(t) if solver.scaled else x_t
        for _ in range(solver.calls if s > 0 else 1):
            step = theirs.timesteps[calls]
            seen = theirs.scale_model_input(x, step) if hasattr(theirs, "scale_model_input") else x
            x = theirs.step(network(seen, numbers[calls].to(x.dtype)), step, x).prev_sample
            calls += 1
        x_s = schedule.alpha(s) * x if solver.scaled else x
        yield x_t, x_s


def check_each_step(solver: Solver, theirs: Any, denoiser: Denoiser, times: Tensor, told: Tensor | None = None) -> None:
    """Ours from the same images, each step's fresh ones, with the same steps remembered."""
    schedule, sampler = denoiser.schedule, solver.sampler(len(times) - 1)
    walk = sampler.walk(denoiser)

    def fresh(place: int) -> Tensor:
        return torch.hypot(schedule.alpha(times[place]), schedule.sigma(times[place])) * normal(place)

    steps = their_steps(solver, theirs, schedule, times, fresh(0), fresh, told)
    for (t, s), (x_t, x_s) in list(zip(pairwise(times), steps, strict=True))[: len(times) - 1 - solver.lowered]:
        close(sampler.step(walk, x_t, t.view(1, 1, 1, 1), s.view(1, 1, 1, 1)), x_s, EXACT)


def check_run(
    solver: Solver,
    theirs: Any,
    denoiser: Denoiser,
    sampler: Sampler,
    dtype: torch.dtype = torch.float64,
    tolerance: float = EXACT,
    told: Tensor | None = None,
) -> None:
    """The images after each step of a run from the same noise."""
    schedule, states = denoiser.schedule, list[Tensor]()
    times = sampler.times(schedule)
    sampler(denoiser, lambda: normal(0, dtype), on_step=lambda s, x_s: states.append(x_s))
    start = schedule.sigma(times[0]) * normal(0, dtype)
    expected = [x_s for _, x_s in their_steps(solver, theirs, schedule, times, start, told=told)]
    assert len(expected) == len(states) > solver.lowered
    for ours, other in list(zip(states, expected, strict=True))[: len(states) - solver.lowered]:
        close(ours, other, tolerance)


@in_float64
@pytest.mark.parametrize(("name", "prediction"), CASES)
@pytest.mark.parametrize("kind", SOLVERS)
def test_each_step_of_a_solver_is_diffusers(kind: str, name: str, prediction: str) -> None:
    solver, schedule = SOLVERS[kind], build("schedule", name)
    theirs = scheduler(solver.kind, schedule, 6, prediction, **solver.config)
    check_each_step(solver, theirs, Denoiser(Network(), schedule, PREDICTIONS[prediction]), times_of(theirs))


@in_float64
@pytest.mark.parametrize("num_steps", [4, 20])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", SOLVERS)
def test_a_whole_run_of_a_solver_is_diffusers(kind: str, prediction: str, num_steps: int) -> None:
    solver, schedule = SOLVERS[kind], build("schedule", "linear")
    theirs = scheduler(solver.kind, schedule, num_steps, prediction, **solver.config)
    check_run(solver, theirs, Denoiser(Network(), schedule, PREDICTIONS[prediction]), solver.sampler(num_steps))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", [kind for kind in SOLVERS if kind != "unipc_3"])
def test_a_whole_run_of_a_solver_is_diffusers_as_shipped(kind: str, prediction: str) -> None:
    """Not UniPC of order 3, whose linear system diffusers solves in float32, to 1e-4."""
    solver, schedule = SOLVERS[kind], build("schedule", "linear")
    theirs = scheduler(solver.kind, schedule, 20, prediction, **solver.config)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS[prediction])
    check_run(solver, theirs, denoiser, solver.sampler(20), torch.float32, SHIPPED)


@in_float64
@pytest.mark.parametrize(
    ("kind", "config"),
    [("heun", {"clip_sample": True}), ("dpmpp_2m", {"thresholding": True}), ("unipc_2", {"thresholding": True})],
)
def test_a_clipped_run_of_a_solver_is_diffusers(kind: str, config: dict[str, Any]) -> None:
    """diffusers' thresholding is clipping to 1, as above; its Euler has neither."""
    solver, schedule = SOLVERS[kind], build("schedule", "linear")
    theirs = scheduler(solver.kind, schedule, 10, "epsilon", **solver.config, **config)
    denoiser = Denoiser(Network(), schedule, PREDICTIONS["epsilon"])
    check_run(solver, theirs, denoiser, solver.sampler(10, clip=1.0))


SPACINGS = {"karras": {"use_karras_sigmas": True}, "log_snr": {"use_exponential_sigmas": True}}


@in_float64
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_spacing_by_noise_is_diffusers(name: str, spacing: str) -> None:
    """sigma / alpha at our times, and the number between two steps that the network is told."""
    schedule = build("schedule", name)
    config = {"timestep_spacing": "linspace", **SPACINGS[spacing]}
    for num_steps in (2, 10, 50):
        theirs = scheduler("EulerDiscreteScheduler", schedule, num_steps, "epsilon", **config)
        times = spaced_times(schedule, num_steps, spacing)
        torch.testing.assert_close((-schedule.log_snr(times) / 2).exp(), theirs.sigmas, rtol=1e-9, atol=0)
        torch.testing.assert_close(schedule.c_noise(times[:-1]), theirs.timesteps, rtol=1e-9, atol=1e-7)


@in_float64
@pytest.mark.parametrize(("spacing", "name"), [*(("karras", name) for name in SCHEDULES), ("log_snr", "linear")])
@pytest.mark.parametrize("kind", SOLVERS)
def test_a_whole_run_between_the_steps_is_diffusers(kind: str, spacing: str, name: str) -> None:
    """Told the number between two steps, which diffusers rounds in its multistep solvers: here both say ours."""
    solver, schedule = SOLVERS[kind], build("schedule", name)
    config = {"timestep_spacing": "linspace", **SPACINGS[spacing], **solver.config}
    theirs = scheduler(solver.kind, schedule, 8, "v_prediction", **config)
    sampler = solver.sampler(8, spacing=spacing)
    told = None if solver.scaled else schedule.c_noise(sampler.times(schedule))
    check_run(solver, theirs, Denoiser(Network(), schedule, PREDICTIONS["v_prediction"]), sampler, told=told)


@pytest.mark.parametrize(
    ("spacing", "name", "steps"),
    [
        ("trailing", "trailing", (1, 8, 10, T)),
        ("leading", "leading", (1, 8, 10, T)),
        ("uniform", "linspace", (2, 10, 28, T)),
    ],
)
def test_spacing_by_time_is_diffusers(spacing: str, name: str, steps: tuple[int, ...]) -> None:
    """Where it falls on steps of the chain; elsewhere diffusers rounds to the nearest, and ours to the next."""
    schedule = build("schedule", "linear")
    for num_steps in steps:
        theirs = scheduler("DDIMScheduler", schedule, num_steps, "epsilon", timestep_spacing=name)
        torch.testing.assert_close(spaced_times(schedule, num_steps, spacing), times_of(theirs), rtol=0, atol=1e-12)


@in_float64
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [3, 12])
@pytest.mark.parametrize("kind", FLOWS)
def test_flow_matching_is_diffusers(kind: str, num_steps: int, shift: float) -> None:
    """Each step, at diffusers' times; a shift of them is a walk along the same straight path."""
    solver = FLOWS[kind]
    theirs = getattr(diffusers, solver.kind)(num_train_timesteps=T, shift=shift)
    theirs.set_timesteps(num_steps)
    denoiser = Denoiser(Network(), FlowSchedule(), VelocityParameterization())
    check_each_step(solver, theirs, denoiser, theirs.sigmas.unique_consecutive())


@in_float64
def test_a_shifted_flow_is_diffusers() -> None:
    """Its noise at our times. Our network is told the time before the shift, diffusers' the one after it."""
    schedule = FlowSchedule(shift=3.0)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=T, shift=3.0)
    times = spaced_times(schedule, 10)
    theirs.set_timesteps(sigmas=times[:-1].tolist())
    torch.testing.assert_close(schedule.sigma(times), theirs.sigmas, rtol=1e-9, atol=0)


@in_float64
@pytest.mark.parametrize("kind", ["dpmpp_2m", "unipc_1", "unipc_2", "unipc_3"])
def test_a_multistep_solver_of_a_flow_is_diffusers(kind: str) -> None:
    """Told our times, where diffusers rounds its own down."""
    solver, schedule = SOLVERS[kind], FlowSchedule()
    config = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, **solver.config}
    theirs = getattr(diffusers, solver.kind)(num_train_timesteps=T, **config)
    theirs.set_timesteps(12)
    denoiser = Denoiser(Network(), schedule, VelocityParameterization())
    check_each_step(solver, theirs, denoiser, theirs.sigmas, told=schedule.c_noise(theirs.sigmas))


@in_float64
@pytest.mark.parametrize("num_steps", [2, 5, 18])
@pytest.mark.parametrize("kind", EDMS)
def test_edm_is_diffusers(kind: str, num_steps: int) -> None:
    """The noise levels, to 1e-6 as DPM-Solver++ divides the way to them in float32, and each step between its own."""
    solver, schedule = EDMS[kind], EDMSchedule()
    theirs = getattr(diffusers, solver.kind)(**solver.config)
    theirs.set_timesteps(num_steps)
    torch.testing.assert_close(schedule.sigma(spaced_times(schedule, num_steps)), theirs.sigmas, rtol=1e-6, atol=0)
    times = schedule.time(-2 * theirs.sigmas.log())
    check_each_step(solver, theirs, Denoiser(Network(), schedule, EDMParameterization()), times)


@in_float64
@pytest.mark.parametrize("name", SCHEDULES)
def test_noising_is_diffusers(name: str) -> None:
    schedule = build("schedule", name)
    theirs = scheduler("DDPMScheduler", schedule, 10, "epsilon")
    x_0, eps = normal(0), normal(1)
    for i, j in pairwise([1, 2, 10, 500, 999, 1000]):
        expected = theirs.add_noise(x_0, eps, torch.tensor([i - 1, j - 1]))
        close(schedule.add_noise(x_0, eps, grid_times(schedule, [i, j])), expected, 1e-9)
