"""The discrete forward chain of DDPM, exactly, behind the same interface as continuous time."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lit.schedule.base import Schedule

__all__ = ["DiscreteSchedule"]

MAX_TERMINAL_KL = 1e-3
"""Nats per dimension. The four published schedules end below it, Stable Diffusion's (2.4e-3) above it."""


class DiscreteSchedule(Schedule):
    """The Markov chain q(x_i | x_{i-1}) = N(sqrt(1 - beta_i) x_{i-1}, beta_i I), i = 1..T, at times t = i / T.

    The tables below have one row per step (index i - 1 for step i), in float64:

        betas                     beta_i
        alphas                    1 - beta_i
        abar                      alphas' cumulative product
        abar_prev                 abar one step earlier, 1 at the first
        sqrt_abar                 alpha(t), the signal's coefficient
        sqrt_one_minus_abar       sigma(t), the noise's standard deviation
        snr_table                 abar / (1 - abar)
        posterior_mean_coef_x_0   sqrt(abar_prev) beta / (1 - abar)            (Ho et al. 2020, eq. 7)
        posterior_mean_coef_x_t   sqrt(alphas) (1 - abar_prev) / (1 - abar)    (eq. 7)
        posterior_variance        (1 - abar_prev) / (1 - abar) beta            (eq. 7)

    Args:
        betas: [T], each in (0, 1).

    Raises:
        ValueError: if a beta is outside (0, 1) or `betas` is not a vector.
    """

    betas: Tensor
    log_abar: Tensor  # [T + 1]; index 0 is clean data

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        betas = betas.double()
        if betas.ndim != 1 or not betas.numel():
            raise ValueError(f"betas must be a non-empty vector, one value per step; got shape {tuple(betas.shape)}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"every beta must lie in (0, 1), got values in [{betas.min():.4g}, {betas.max():.4g}]; "
                "check beta_min, beta_max and num_timesteps"
            )
        self.register_buffer("betas", betas, persistent=False)
        log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self.register_buffer("log_abar", log_abar, persistent=False)
        if (kl := float(self.terminal_kl())) > MAX_TERMINAL_KL:
            warnings.warn(
                f"{type(self).__name__} with {self.num_timesteps} steps ends far from noise: KL(q(x_T | x_0) || "
                f"N(0, I)) is {kl:.2g} nats per dimension (over {MAX_TERMINAL_KL:g}), with {self.abar[-1].sqrt():.1%} "
                "of the signal left, while sampling starts from pure noise. Raise beta_max or num_timesteps.",
                stacklevel=3,
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DiscreteSchedule":
        """Follow the module to another device, never to another dtype: bf16 tables are wrong in the third digit."""
        device = fn(torch.empty(0, device=self.betas.device)).device
        self._buffers = {name: table.to(device) for name, table in self.named_buffers(recurse=False)}
        return self

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.betas)

    @property
    def alphas(self) -> Tensor:
        return 1 - self.betas

    @property
    def abar(self) -> Tensor:
        return self.log_abar[1:].exp()

    @property
    def abar_prev(self) -> Tensor:
        return self.log_abar[:-1].exp()

    @property
    def sqrt_abar(self) -> Tensor:
        return (self.log_abar[1:] / 2).exp()

    @property
    def sqrt_one_minus_abar(self) -> Tensor:
        return (-torch.expm1(self.log_abar[1:])).sqrt()

    @property
    def snr_table(self) -> Tensor:
        return self._log_snr()[1:].exp()

    @property
    def posterior_mean_coef_x_0(self) -> Tensor:
        return self.abar_prev.sqrt() * self.betas / -torch.expm1(self.log_abar[1:])

    @property
    def posterior_mean_coef_x_t(self) -> Tensor:
        return self.alphas.sqrt() * torch.expm1(self.log_abar[:-1]) / torch.expm1(self.log_abar[1:])

    @property
    def posterior_variance(self) -> Tensor:
        return self.betas * torch.expm1(self.log_abar[:-1]) / torch.expm1(self.log_abar[1:])

    def alpha(self, t: Tensor) -> Tensor:
        return (self.log_abar[self.index(t)] / 2).exp().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(self.log_abar[self.index(t)])).sqrt().to(t.dtype)

    def log_snr(self, t: Tensor) -> Tensor:
        return self._log_snr()[self.index(t)].to(t.dtype)

    def denoised_fraction(self, s: Tensor, t: Tensor) -> Tensor:
        log_snr = self._log_snr()  # the difference is taken in float64: neighbouring steps nearly cancel
        return -torch.expm1(log_snr[self.index(t)] - log_snr[self.index(s)]).to(t.dtype)

    def time(self, log_snr: Tensor) -> Tensor:
        """The first step at which log SNR is no more than `log_snr`."""
        index = torch.searchsorted(-self._log_snr().to(log_snr.dtype), -log_snr)
        return self.grid(index.clamp(max=self.num_timesteps)).to(log_snr.dtype)

    def c_noise(self, t: Tensor) -> Tensor:
        """The step's number counted from 0, t T - 1 in 0..T-1, as DDPM's networks are told it."""
        return (self.index(t) - 1).to(t.dtype)

    def snap(self, t: Tensor) -> Tensor:
        """ceil(t T) / T: uniform times in (0, 1] become uniform steps 1..T."""
        return self.grid(self.index(t)).to(t.dtype)

    def index(self, t: Tensor) -> Tensor:
        """The step ceil(t T) in 0..T at time `t` in [0, 1]; i for a time i / T rounded to float32 or float64."""
        scaled = t.double() * self.num_timesteps
        nearest = scaled.round()
        on_grid = (nearest / self.num_timesteps).to(t.dtype) == t
        return torch.where(on_grid, nearest, scaled.ceil()).long()

    def grid(self, index: Tensor) -> Tensor:
        """The time of the step `index`, i / T in float64."""
        return index.double() / self.num_timesteps

    def times(self, num_steps: int | None = None) -> Tensor:
        """`num_steps` of the T steps, evenly spread from 1, and 0: [num_steps + 1]. None takes all T.

        Raises:
            ValueError: if `num_steps` is not in 1..T.
        """
        if num_steps is None:
            num_steps = self.num_timesteps
        if not 1 <= num_steps <= self.num_timesteps:
            raise ValueError(
                f"cannot take {num_steps} sampling steps: the schedule has {self.num_timesteps}; "
                f"set sampler.num_steps between 1 and {self.num_timesteps}"
            )
        remaining = torch.arange(num_steps, -1, -1, device=self.betas.device)
        return self.grid((remaining * self.num_timesteps + num_steps - 1) // num_steps).float()  # ceil, in integers

    def step_noise(self, x_prev: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """A draw of one Markov step, q(x_t | x_{t-1/T}) = N(sqrt(1 - beta_t) x_{t-1/T}, beta_t I).

        Args:
            x_prev: images one step before `t`, [B, C, H, W].
            t: the time of the step's end, in (0, 1].
            eps: standard Gaussian noise like `x_prev`; drawn if None.
        """
        beta = self.betas[self.index(t) - 1].to(x_prev.dtype)
        eps = torch.randn_like(x_prev) if eps is None else eps
        return (1 - beta).sqrt() * x_prev + beta.sqrt() * eps

    def terminal_kl(self, x_0: Tensor | None = None) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I)) in nats per dimension, a scalar: what sampling gets wrong before its first step.

        Args:
            x_0: clean images in [-1, 1]; None takes the worst case, every pixel at -1 or 1.
        """
        alpha_squared, sigma_squared = self.log_abar[-1].exp(), -torch.expm1(self.log_abar[-1])
        second_moment = alpha_squared * (1.0 if x_0 is None else x_0.double().square().mean())
        return (sigma_squared + second_moment - 1 - sigma_squared.log()) / 2

    def _log_snr(self) -> Tensor:
        return self.log_abar - torch.log(-torch.expm1(self.log_abar))
