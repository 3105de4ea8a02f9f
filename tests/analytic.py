"""Denoisers with answers in closed form, noise that takes a sampler apart, and members of the config groups."""

import copy
import functools
import math
import re
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.model import Network
from diffusion_lit.parameterization import Parameterization, VParameterization
from diffusion_lit.schedule import DiscreteSchedule, Schedule
from diffusion_lit.weighting import Weighting

__all__ = [
    "Fake",
    "FiniteDenoiser",
    "GaussianDenoiser",
    "Impulses",
    "MixtureDenoiser",
    "build",
    "grid_times",
    "members",
    "weight_of",
]


def members(group: str, base: type = object) -> list[str]:
    """The names in conf/GROUP whose class is a `base`."""
    paths = sorted((CONFIG_FOLDER / group).glob("*.yaml"))
    return [path.stem for path in paths if issubclass(class_of(path), base)]


@functools.cache
def class_of(path: Path) -> type:
    """The class that a member's file names, read without its arguments, for tests ask often as they are collected."""
    [target] = re.findall(r"^_target_: *(\S+)$", path.read_text(), re.MULTILINE)
    return get_class(target)


@functools.cache
def described(group: str, name: str) -> tuple[type, dict[str, Any]]:
    """The class that conf/GROUP/NAME.yaml names, and its arguments."""
    settings = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / group / f"{name}.yaml")))
    kind = get_class(settings.pop("_target_"))
    assert "_target_" not in str(settings) and "${" not in str(settings), "only Hydra can build it"
    return kind, settings


def build(group: str, name: str, **overrides: object) -> Any:
    """The object that conf/GROUP/NAME.yaml describes: what Hydra builds, in less time."""
    kind, settings = described(group, name)
    return kind(**copy.deepcopy(settings) | overrides)


def grid_times(schedule: DiscreteSchedule, steps: list[int]) -> Tensor:
    """t = i / T in float64 for each step i, [len(steps), 1, 1, 1]."""
    return torch.tensor([i / schedule.num_timesteps for i in steps], dtype=torch.float64).view(-1, 1, 1, 1)


class Fake(Network):
    """The base of networks in tests: of single pixels, unless they say otherwise."""

    image_shape = (1, 1, 1)


class Silent(Fake):
    """For models that know x_0 without asking it."""

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        raise NotImplementedError


Coefficients = tuple[Tensor, Tensor, Tensor]


def prediction(
    denoiser: Denoiser, x_0: Tensor, x_t: Tensor, t: Tensor, coefficients: Coefficients | None = None
) -> Prediction:
    """What `denoiser` would make of x_t if its estimate was `x_0`; `coefficients` are the schedule's at t, if known."""
    alpha, sigma, log_snr = coefficients or denoiser.schedule.coefficients(t)
    c_skip, c_out, _ = denoiser.parameterization(alpha, sigma)
    output = (x_0 - c_skip * x_t) / c_out
    return Prediction(denoiser.schedule, t, x_t, x_0, output, alpha, sigma, c_skip, c_out, log_snr)


def weight_of(weighting: Weighting, denoiser: Denoiser, t: Tensor) -> Tensor:
    """The weight of the error of the output at each of the times `t`, whose shape it has."""
    zeros = torch.zeros(1, 1, 1, 1, dtype=t.dtype)
    return weighting(prediction(denoiser, zeros, zeros, t.view(-1, 1, 1, 1))).view_as(t)


class GaussianDenoiser(Denoiser):
    """The perfect model of data whose pixels are independent N(mean, std^2).

        E[x_0 | x_t] = mean + alpha std^2 (x_t - alpha mean) / (alpha^2 std^2 + sigma^2)

    Args:
        schedule: any.
        mean: the data's mean.
        std: the data's standard deviation.
        parameterization: what `output` is in terms of; it changes nothing else.
    """

    def __init__(
        self, schedule: Schedule, mean: float, std: float, parameterization: Parameterization | None = None
    ) -> None:
        super().__init__(Silent(), schedule, parameterization or VParameterization())
        self.mean = mean
        self.std = std

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        coefficients = alpha, sigma, _ = self.schedule.coefficients(t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x_0 = self.mean + gain * (x_t - alpha * self.mean)
        return prediction(self, x_0, x_t, t, coefficients)

    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p_t(x_t), summed over the whole batch; x_t ~ N(alpha mean, alpha^2 std^2 + sigma^2)."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        spread = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return torch.distributions.Normal(alpha * self.mean, spread).log_prob(x_t).sum()

    def flow(self, x_1: Tensor) -> Tensor:
        """Where the probability-flow ODE takes x_1 by time 0: between two Gaussians it is an affine map."""
        one = torch.ones(1, 1, 1, 1, dtype=x_1.dtype)
        alpha, sigma = self.schedule.alpha(one), self.schedule.sigma(one)
        spread = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return self.mean + self.std * (x_1 - alpha * self.mean) / spread


class MixtureDenoiser(Denoiser):
    """The perfect model of a mixture of Gaussians, N(mean_k, std_k^2 I) with probability weight_k.

        p_t = sum_k weight_k N(alpha mean_k, alpha^2 std_k^2 + sigma^2)
        E[x_0 | x_t] = sum_k r_k (mean_k + alpha std_k^2 (x_t - alpha mean_k) / (alpha^2 std_k^2 + sigma^2))

    with r_k the probability of component k given x_t.

    Args:
        schedule: any.
        means: [K, C, H, W].
        stds: [K].
        weights: [K], summing to 1.
        parameterization: what `output` is in terms of; it changes nothing else.
    """

    def __init__(
        self,
        schedule: Schedule,
        means: Tensor,
        stds: Tensor,
        weights: Tensor,
        parameterization: Parameterization | None = None,
    ) -> None:
        super().__init__(Silent(), schedule, parameterization or VParameterization())
        self.means, self.stds, self.weights = means.double(), stds.double(), weights.double()

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        coefficients = self.schedule.coefficients(t)
        x, alpha, sigma = x_t.double(), coefficients[0].double(), coefficients[1].double()
        responsibility = self.joint(x, alpha, sigma).softmax(1)  # [B, K]
        alphas, variance = alpha.flatten()[:, None], self.stds**2
        gain = alphas * variance / (alphas**2 * variance + sigma.flatten()[:, None] ** 2)
        on_means = responsibility * (1 - gain * alphas)
        x_0 = (on_means @ self.means.flatten(1)).view_as(x) + (responsibility * gain).sum(1).view(-1, 1, 1, 1) * x
        x_0 = x_0.to(x_t.dtype)
        return prediction(self, x_0, x_t, t, coefficients)

    def joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log weight_k + log N(x; alpha mean_k, alpha^2 std_k^2 + sigma^2), [B, K]."""
        variance = alpha.flatten()[:, None] ** 2 * self.stds**2 + sigma.flatten()[:, None] ** 2  # [B, K]
        distance = (x[:, None] - alpha[:, None] * self.means).square().flatten(2).sum(2)
        dim = self.means[0].numel()
        return self.weights.log() - distance / (2 * variance) - dim / 2 * (2 * math.pi * variance).log()

    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p_t(x_t) of each image in nats, [B]."""
        x, alpha, sigma = x_t.double(), self.schedule.alpha(t).double(), self.schedule.sigma(t).double()
        return self.joint(x, alpha, sigma).logsumexp(1)

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """Clean images, float64 [num, C, H, W]."""
        k = torch.multinomial(self.weights, num, replacement=True, generator=generator)
        noise = torch.randn(num, *self.means.shape[1:], generator=generator, dtype=torch.float64)
        return self.means[k] + self.stds[k].view(-1, 1, 1, 1) * noise


class FiniteDenoiser(MixtureDenoiser):
    """The perfect model of a finite dataset: the posterior mean over its images, each as likely as the other.

    Args:
        schedule: any.
        images: [N, C, H, W].
        parameterization: what `output` is in terms of; it changes nothing else.
    """

    def __init__(self, schedule: Schedule, images: Tensor, parameterization: Parameterization | None = None) -> None:
        num = len(images)
        super().__init__(schedule, images, torch.zeros(num), torch.full((num,), 1 / num), parameterization)


class Impulses:
    """Noise that reads off what a sampler does where it is affine in its draws, as with a `GaussianDenoiser`.

    Image 0 gets no noise at all; image k gets 1 in draw k and 0 in every other. Then the first output is the
    samples' mean, and the squared distances of the others from it sum to their variance: both without any
    statistical error.

    Args:
        num_draws: how many draws the sampler may make.
    """

    def __init__(self, num_draws: int) -> None:
        self.num_draws = num_draws
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        noise = torch.zeros(self.num_draws + 1, 1, 1, 1, dtype=torch.float64)
        noise[self.calls] = 1
        return noise

    @staticmethod
    def moments(output: Tensor) -> tuple[float, float]:
        """The mean and variance of the samples that `output` stands for."""
        return float(output[0]), float((output[1:] - output[0]).square().sum())
