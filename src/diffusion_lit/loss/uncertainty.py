"""A loss that learns how uncertain each noise level is."""

import math

import torch
from torch import Tensor, nn

from diffusion_lit.denoiser import Prediction
from diffusion_lit.density import Density
from diffusion_lit.fixed_precision import FixedPrecision
from diffusion_lit.loss.mse import MSELoss
from diffusion_lit.model.magnitude import MPLinear
from diffusion_lit.random import fold_in
from diffusion_lit.weighting import Weighting


class UncertaintyLoss(FixedPrecision, MSELoss):
    """loss exp(-u) + u, where u(t) learns the log of the loss at t (Karras et al. 2024, eq. 14, arXiv:2312.02696).

    Each noise level so comes to count alike, whatever its loss. u is a linear layer on Fourier features of
    log(sigma / alpha) / 4, trained with the network and not needed for sampling.

    Args, besides those of `MSELoss`:
        channels: number of Fourier features.
        unit_weight: hold the layer's weight at magnitude 1, as EDM2's code does: over all noise levels u then has
            magnitude 1 from the start on, where it otherwise begins at 0 and is as large as it has to be.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(
        self,
        density: Density,
        weighting: Weighting,
        huber: float | None = None,
        channels: int = 128,
        unit_weight: bool = False,
    ) -> None:
        super().__init__(density, weighting, huber)
        generator = fold_in(0, "uncertainty", channels)
        for name, draw in (("frequencies", torch.randn), ("phases", torch.rand)):
            numbers = 2 * math.pi * draw(channels, generator=generator, dtype=torch.float32)
            self.register_buffer(name, numbers, persistent=False)
        self.head: MPLinear | nn.Linear
        if unit_weight:
            self.head = MPLinear(channels, 1)
        else:
            self.head = nn.Linear(channels, 1, bias=False)
            nn.init.zeros_(self.head.weight)

    def terms(self, p: Prediction, x_0: Tensor) -> dict[str, Tensor]:
        mse = super().terms(p, x_0)["loss"]
        u = self.log_loss(p.log_snr.flatten()).to(mse.dtype)
        return {"loss": mse * (-u).exp() + u, "mse": mse}

    def log_loss(self, log_snr: Tensor) -> Tensor:
        """u where log SNR is `log_snr`, [B]."""
        level = (-log_snr / 8).clamp(-5, 5)  # log(sigma / alpha) / 4
        features = math.sqrt(2) * torch.cos(level[:, None] * self.frequencies + self.phases)
        with torch.autocast(features.device.type, enabled=False):  # a loss is float32 whatever the network's precision
            return self.head(features.to(self.head.weight.dtype)).flatten()
