"""EDM2's networks, against the public code's own outputs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.interop.edm2 import denoiser_settings, names, network_settings, weights_from

PUBLIC = json.loads((Path(__file__).parents[1] / "reference" / "edm2_networks.json").read_text())
CASES = ("by_class", "unconditional")


def model_of(config: Mapping[str, Any], known: list[str]) -> tuple[Denoiser, dict[str, Tensor]]:
    """The denoiser of a configuration, and weights by their names, made as the fixture says."""
    denoiser = instantiate({"_target_": "diffusion_lit.denoiser.Denoiser", **denoiser_settings(config)})
    shapes = {name: w.shape for name, w in denoiser.network.state_dict().items()}
    shape = {theirs: shapes[ours] for theirs, ours in names(network_settings(config))}
    shape |= {name: torch.Size(()) for name in shape if name.endswith("gain")}
    shape |= {"logvar_fourier.freqs": (128,), "logvar_fourier.phases": (128,), "logvar_linear.weight": (1, 128)}
    assert sorted(shape) == known
    state = {name: torch.randn(shape[name], generator=torch.Generator().manual_seed(i)) for i, name in enumerate(known)}
    return denoiser, state


@pytest.mark.parametrize("case", CASES)
def test_the_denoiser_gives_what_the_public_code_gives(case: str) -> None:
    config = PUBLIC[case]["config"]
    denoiser, state = model_of(config, PUBLIC[case]["names"])
    denoiser.network.load_state_dict(weights_from(state, network_settings(config)))
    head = 128  # which the public count has besides
    assert sum(p.numel() for p in denoiser.network.parameters()) + head == PUBLIC[case]["parameters"]
    sigma = torch.tensor([0.01, 0.6, 40.0]).view(-1, 1, 1, 1)
    x = 0.3 + sigma * torch.randn(3, *denoiser.image_shape, generator=torch.Generator().manual_seed(1000))
    label = torch.tensor([1, 4, NO_CLASS]) if denoiser.num_classes else None
    with torch.no_grad():
        x_0 = denoiser.eval()(x, denoiser.schedule.time(-2 * sigma.double().log()), Condition(label)).x_0.flatten(1)
    values = x_0[:, :: x_0.shape[1] // 8][:, :8]
    torch.testing.assert_close(values.double(), torch.tensor(PUBLIC[case]["values"]).double(), rtol=1e-5, atol=1e-5)


CONFIG = PUBLIC["by_class"]["config"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**CONFIG, "resample_filter": [1, 3, 3, 1]}, r"resample_filter=\[1, 3, 3, 1\].*only \[1, 1\]"),
        ({**CONFIG, "channel_mult_emb": 2}, "channel_mult_emb=2"),
        ({**CONFIG, "groups": 8}, "groups=8"),
        ({**CONFIG, "channels_per_head": 12}, "channels_per_head=12"),
        ({key: value for key, value in CONFIG.items() if key != "label_dim"}, "label_dim"),
        ({**CONFIG, "sigma_data": 0}, "sigma_data"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        denoiser_settings(config)


def test_weights_of_another_configuration_are_refused_by_name() -> None:
    settings = network_settings(CONFIG)
    _, state = model_of(CONFIG, PUBLIC["by_class"]["names"])
    with pytest.raises(ValueError, match=r"lack unet\.emb_label\.weight"):
        weights_from({name: w for name, w in state.items() if name != "unet.emb_label.weight"}, settings)
    with pytest.raises(ValueError, match=r"have unet\.more"):
        weights_from({**state, "unet.more": torch.zeros(1)}, settings)
