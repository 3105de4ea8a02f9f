"""Times at which the loss is large more often."""

import math

import torch
from torch import Generator, Tensor

from diffusion_lit.density.base import Density
from diffusion_lit.distributed.collective import gathered
from diffusion_lit.fixed_precision import FixedPrecision
from diffusion_lit.schedule import Schedule


class ImportanceDensity(FixedPrecision, Density):
    """p(t) ~ sqrt(E[L_t^2]), the loss divided by p(t) in turn (Nichol & Dhariwal 2021, section 3.3, arXiv:2102.09672).

    The expected loss is that of uniform times, with less variance. The second moments are of the last losses in each
    of `num_bins` equal parts of time; all ranks share them, and they are saved with the model. Until each part has its
    losses, and outside training, times are uniform.

    Args:
        num_bins: number of parts; the paper has one for each of T steps. A ValueError under 1.
        history_size: number of losses that make a second moment; a ValueError under 1.
        uniform_share: the share of times that stay uniform, so that none is forgotten; a ValueError outside (0, 1].
    """

    history: Tensor  # [num_bins, history_size]
    counts: Tensor  # [num_bins], losses ever recorded

    def __init__(self, num_bins: int = 100, history_size: int = 10, uniform_share: float = 0.001) -> None:
        super().__init__()
        if num_bins < 1 or history_size < 1:
            raise ValueError(f"need num_bins and history_size of at least 1, got {num_bins} and {history_size}")
        if not 0 < uniform_share <= 1:
            raise ValueError(f"density.uniform_share must lie in (0, 1], got {uniform_share}; 0.001 is usual")
        self.uniform_share = uniform_share
        self.register_buffer("history", torch.zeros(num_bins, history_size, dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(num_bins, dtype=torch.long))
        self.unrecorded: list[tuple[Tensor, Tensor]] = []
        """Parts of time and losses of a step's batches so far: they count when all of its times are drawn."""

    def check(self, schedule: Schedule) -> None:
        steps, parts = schedule.num_timesteps, len(self.counts)
        if steps is not None and steps % parts:
            fitting = " or ".join(map(str, sorted({math.gcd(steps, parts), steps})))
            raise ValueError(
                f"density.num_bins={parts} does not divide the schedule's {steps} steps into equal parts; set "
                f"density.num_bins={fitting}"
            )
        if parts * schedule.t_min > 1 + 1e-9:
            most = math.floor(1 / schedule.t_min + 1e-9)
            raise ValueError(
                f"density.num_bins={parts} has parts of time below t_min = {schedule.t_min:.3g}, which no loss "
                f"reaches; set density.num_bins={most} or fewer"
            )

    def probabilities(self) -> Tensor:
        """Of each part of time, float32 [num_bins]."""
        num_bins, history_size = self.history.shape
        uniform = self.history.new_full((num_bins,), 1 / num_bins)
        if not self.training:
            return uniform
        root = self.history.square().mean(1).sqrt()
        full = (self.counts >= history_size).all()  # stays on the device: a step waits for no number of it
        return torch.where(full, torch.lerp(root / root.sum(), uniform, self.uniform_share), uniform)

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        part = torch.multinomial(self.probabilities(), len(x_0), replacement=True, generator=generator)
        within = 1 - torch.rand(len(x_0), generator=generator, dtype=x_0.dtype, device=x_0.device)
        return ((part + within) / len(self.counts)).view(-1, 1, 1, 1)

    def correction(self, t: Tensor) -> Tensor:
        return 1 / (len(self.counts) * self.probabilities()[self.part(t)]).to(t.dtype)

    def part(self, t: Tensor) -> Tensor:
        """The number of the part (k / num_bins, (k + 1) / num_bins] that each time lies in."""
        num_bins = len(self.counts)
        rounding = 2 * torch.finfo(t.dtype).eps
        return (t.double() * num_bins * (1 - rounding)).ceil().long().clamp(1, num_bins) - 1

    @torch.no_grad()
    def record(self, t: Tensor, loss: Tensor) -> None:
        if not self.training:
            return
        batch, batches = self.place
        if batch == 0:
            self.unrecorded.clear()
        self.unrecorded.append((gathered(self.part(t.flatten())), gathered(loss.detach().float())))
        if batch + 1 < batches:
            return
        part, loss = (torch.cat(of_batches) for of_batches in zip(*self.unrecorded, strict=True))
        num_bins, size = self.history.shape
        # What leaves no trace goes into one more part: losses of a step that is left out for others, and those beyond
        # the last that fit.
        part = torch.where(loss.isfinite(), part, num_bins)
        order = part.argsort(stable=True)
        part, loss = part[order], loss[order]
        num = self.counts.new_zeros(num_bins + 1).index_add(0, part, torch.ones_like(part))
        nth = torch.arange(len(part), device=part.device) - (num.cumsum(0) - num)[part]  # of its part in this batch
        place = (torch.nn.functional.pad(self.counts, (0, 1))[part] + nth) % size
        part = torch.where(nth >= num[part] - size, part, num_bins)
        history = torch.nn.functional.pad(self.history, (0, 0, 0, 1))
        history[part, place] = loss
        self.history.copy_(history[:-1])
        self.counts += num[:-1]
