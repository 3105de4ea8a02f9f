"""A tiny network of each kind, that tests walk: a new network is one more line."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from diffusion_lit.model import DiT, EDM2UNet, Network, SongUNet, UNet

__all__ = ["NETWORKS", "Tiny", "randomise"]

CHANNELS, NUM_CLASSES = 2, 3


@dataclass(frozen=True)
class Tiny:
    """A network and settings with which it takes images of 8 x 8 and 8 x 16 in milliseconds."""

    kind: Callable[..., Network]
    settings: dict[str, Any]

    @property
    def augments(self) -> bool:
        """Whether it can take an augment label."""
        return "augmentation_dim" in signature(self.kind).parameters

    def build(self, seed: int = 0, resolution: int | list[int] = 8, **settings: Any) -> Network:
        """By default conditional, in evaluation mode, and with initial weights, random but for the `seed`."""
        torch.manual_seed(seed)
        given = {"resolution": resolution, "image_channels": CHANNELS, "num_classes": NUM_CLASSES}
        return self.kind(**given | self.settings | settings).eval()


NETWORKS = {
    "unet": Tiny(UNet, {"channels": 8, "channel_multipliers": [1, 2], "attention_resolutions": [4], "num_groups": 4}),
    "unet_adm": Tiny(
        UNet,
        {"channels": 8, "channel_multipliers": [1, 2], "attention_resolutions": [8], "num_groups": 4}
        | {"head_channels": 4, "time_conditioning": "scale_shift", "resampling": "residual"},
    ),
    "unet_folded": Tiny(
        UNet,
        {"channels": 8, "channel_multipliers": [1, 2], "attention_resolutions": [4], "num_groups": 4, "fold": 2}
        | {"num_res_blocks": 1},
    ),
    "ddpmpp": Tiny(
        SongUNet,
        {"channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1, "attention_resolutions": [4]}
        | {"num_groups": 4},
    ),
    "ncsnpp": Tiny(
        SongUNet,
        {"channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1, "attention_resolutions": [4]}
        | {"num_groups": 4, "noise_embedding": "fourier", "resample_filter": [1, 3, 3, 1], "pyramid": True},
    ),
    "edm2": Tiny(
        EDM2UNet,
        {"channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1, "attention_resolutions": [4]}
        | {"head_channels": 8},
    ),
    "dit": Tiny(DiT, {"channels": 16, "depth": 2, "num_heads": 2}),
    "dit_diffusers": Tiny(
        DiT,
        {"channels": 16, "depth": 2, "num_heads": 4, "patch_size": 4, "mlp_ratio": 2.0}
        | {"frequency_shift": 1.0, "mlp_norm_eps": 1e-5},
    ),
}


def randomise(network: torch.nn.Module, scale: float = 0.1, seed: int = 0) -> None:
    """Undo the zero initialisation, behind which every path is the same."""
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.data.add_(scale * torch.randn(p.shape, generator=generator))
