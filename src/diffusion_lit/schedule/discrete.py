"""The discrete forward chain of DDPM, exactly, behind the same interface as continuous time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.schedule.base import Schedule


class DiscreteSchedule(Schedule):
    """The Markov chain q(x_i | x_{i-1}) = N(sqrt(1 - beta_i) x_{i-1}, beta_i I), i = 1..T, at times t = i / T.

    Between two steps log SNR is interpolated linearly in time, so that solvers of continuous time can ask anywhere. The
    tables below have one row per step (index i - 1 for step i), in float64:

        betas                 beta_i
        alphas                1 - beta_i
        abar                  alphas' cumulative product, alpha(t)^2
        snr_table             abar / (1 - abar)
        posterior_variance    (1 - abar_{i-1}) / (1 - abar_i) beta_i    (Ho et al. 2020, eq. 7)

    Args:
        betas: [T], a tensor or a list, each in (0, 1).
        shift: as `Schedule`.
        zero_terminal_snr: scale the chain so that its end is pure noise, beta_T = 1 (Lin et al. 2023, algorithm 1,
            arXiv:2305.08891). A network cannot then predict eps: at T it sees nothing else.

    Raises:
        ValueError: if a beta is outside (0, 1), `betas` is not a vector, or `shift` is not positive.
    """

    betas: Tensor
    log_abar: Tensor  # [T + 1]; index 0 is clean data
    log_snr_steps: Tensor  # [T + 1]

    def __init__(self, betas: Tensor | Sequence[float], shift: float = 1.0, zero_terminal_snr: bool = False) -> None:
        super().__init__(shift)
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or not betas.numel():
            raise ValueError(f"betas must be a non-empty vector, one value per step; got shape {tuple(betas.shape)}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"every beta must lie in (0, 1), got values in [{betas.min():.4g}, {betas.max():.4g}]; "
                "check beta_min, beta_max and num_timesteps"
            )
        log_abar = torch.log1p(-betas).cumsum(0)
        if shift != 1:
            log_abar = F.logsigmoid(log_snr_of(log_abar) - self.log_shift)
        if zero_terminal_snr and len(betas) == 1:
            raise ValueError("zero_terminal_snr needs num_timesteps of at least 2: a single step would leave nothing")
        if zero_terminal_snr:
            root = (log_abar / 2).exp()
            log_abar = 2 * ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).log()
        if shift != 1 or zero_terminal_snr:
            betas = -torch.expm1(log_abar.diff(prepend=log_abar.new_zeros(1)))
        self.num_timesteps: int = len(betas)
        self.ends_in_noise = zero_terminal_snr
        self.t_min = 1 / len(betas)
        self.register_buffer("betas", betas, persistent=False)
        log_abar = torch.cat([betas.new_zeros(1), log_abar])
        self.register_buffer("log_abar", log_abar, persistent=False)
        self.register_buffer("log_snr_steps", log_snr_of(log_abar), persistent=False)
        self.check_end("beta_max or num_timesteps, or set zero_terminal_snr=true")

    @property
    def alphas(self) -> Tensor:
        return 1 - self.betas

    @property
    def abar(self) -> Tensor:
        return self.log_abar[1:].exp()

    @property
    def snr_table(self) -> Tensor:
        return self.log_snr_steps[1:].exp()

    @property
    def posterior_variance(self) -> Tensor:
        return self.betas * torch.expm1(self.log_abar[:-1]) / torch.expm1(self.log_abar[1:])

    def log_snr(self, t: Tensor) -> Tensor:
        """Linear between two steps; SNR falls as 1 / t within the first, and as (1 - t)^2 within one that ends at 0."""
        table, position = self.log_snr_steps.to(t.device), self.position(t)
        left, right = table[position.long()], table[position.ceil().long()]
        between = torch.lerp(left, right, position.frac())
        between = torch.where(left == math.inf, right - position.log(), between)
        if not self.ends_in_noise:
            return between
        remaining = left + 2 * (self.num_timesteps - position).log()
        return torch.where((right == -math.inf) & (position > 0), remaining, between)

    def time(self, log_snr: Tensor) -> Tensor:
        table, log_snr = self.log_snr_steps.to(log_snr.device), log_snr.double()
        index = torch.searchsorted(-table, -log_snr).clamp(1, self.num_timesteps)  # the first step as noisy, or noisier
        left, right = table[index - 1], table[index]
        part = ((left - log_snr) / (left - right)).clamp(0, 1)
        part = torch.where(left == math.inf, (right - log_snr).exp(), part)
        part = torch.where(right == -math.inf, 1 - ((log_snr - left) / 2).exp(), part)
        return (index - 1 + part) / self.num_timesteps

    def c_noise(self, t: Tensor) -> Tensor:
        """The step's number counted from 0, t T - 1 in 0..T-1, as DDPM's networks receive it."""
        return (self.position(t) - 1).clamp(min=0).to(t.dtype)

    def snap(self, t: Tensor) -> Tensor:
        """ceil(t T) / T: uniform times in (0, 1] become uniform steps 1..T."""
        return (self.index(t).double() / self.num_timesteps).to(t.dtype)

    def index(self, t: Tensor) -> Tensor:
        """The step ceil(t T) in 0..T at time `t` in [0, 1]; i for a time i / T rounded to float32 or float64."""
        return self.position(t).ceil().long()

    def position(self, t: Tensor) -> Tensor:
        """t T in float64; exactly i for a time i / T rounded to the dtype of `t`."""
        scaled = t.double() * self.num_timesteps
        nearest = scaled.round()
        close = (scaled - nearest).abs() <= 2 * torch.finfo(t.dtype).eps * nearest
        return torch.where(close, nearest, scaled)

    def step_noise(self, x_prev: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """A draw of one Markov step, q(x_t | x_{t-1/T}) = N(sqrt(1 - beta_t) x_{t-1/T}, beta_t I), to `t` in (0, 1].

        `x_prev` are images one step before `t`, [B, C, H, W], `eps` standard Gaussian noise like them; drawn if None.
        """
        beta = self.betas[self.index(t) - 1].to(x_prev.dtype)
        eps = torch.randn_like(x_prev) if eps is None else eps
        return (1 - beta).sqrt() * x_prev + beta.sqrt() * eps


def log_snr_of(log_abar: Tensor) -> Tensor:
    """log(abar / (1 - abar))."""
    return log_abar - torch.log(-torch.expm1(log_abar))
