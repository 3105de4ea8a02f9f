"""The networks of NVlabs/edm: the numbers that its own code gives, in tests/reference, against ours with its weights."""

import json
import math
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.interop.edm import denoiser_settings, weights_from

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "reference" / "edm_networks.json").read_text())


def draw(name: str, shape: Sequence[int]) -> Tensor:
    """The README's rule for inputs."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """The README's rule for weights."""
    z = draw(name, shape)
    if len(shape) > 1:
        return z / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * z if name.endswith("weight") else 0.1 * z if name.endswith("bias") else z


@cache
def state(name: str) -> dict[str, Tensor]:
    return {key: weight(key, shape) for key, shape in RECORDED[name]["shapes"].items()}


@cache
def ours(name: str) -> Denoiser:
    """A published configuration as ours, with its weights."""
    settings = denoiser_settings(RECORDED[name]["config"])
    denoiser: Denoiser = instantiate({"_target_": "diffusion_lit.denoiser.Denoiser", **settings})
    denoiser.network.load_state_dict(weights_from(state(name), settings["network"]))
    return denoiser.eval()


@pytest.mark.parametrize("name", RECORDED)
@torch.no_grad()
def test_the_denoiser_is_the_published_one(name: str) -> None:
    """D(x; sigma) of the whole model, near to the data and far from it, with classes, without one, and augmented."""
    recorded, denoiser = RECORDED[name], ours(name)
    sigma, shape = torch.tensor(recorded["sigma"], dtype=torch.float64), (3, *denoiser.image_shape)
    x = draw("x", shape) * (sigma**2 + 0.25).sqrt().view(-1, 1, 1, 1)
    t = denoiser.schedule.time(-2 * sigma.log()).view(-1, 1, 1, 1)
    if denoiser.schedule.num_timesteps is not None:  # its levels are the chain's steps, in float32
        t = (t * denoiser.schedule.num_timesteps).round() / denoiser.schedule.num_timesteps
    labels = None if recorded["labels"] is None else torch.tensor(recorded["labels"])
    augment = 0.5 * draw("augment", (3, 9)) if recorded["config"].get("augment_dim") else None
    denoised = denoiser(denoiser.schedule.alpha(t) * x, t, Condition(labels, augment)).x_0
    expected = torch.tensor(recorded["denoised"], dtype=torch.float64).view(shape)
    print(name, (denoised-expected).abs().amax((1,2,3)),expected.abs().amax((1,2,3)))
    torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-5)
