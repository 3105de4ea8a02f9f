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
from diffusion_lit.density import UniformDensity
from diffusion_lit.interop.edm2 import denoiser_settings, names, network_settings, weights_from
from diffusion_lit.interop.published import described
from diffusion_lit.loss import UncertaintyLoss
from diffusion_lit.model.magnitude import force_unit_weights
from diffusion_lit.weighting import UnitWeighting

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


def eighth(denoiser: Denoiser, label: Tensor | None) -> Tensor:
    """Eight numbers of each denoised image, of the images that the fixture describes."""
    sigma = torch.tensor([0.01, 0.6, 40.0]).view(-1, 1, 1, 1)
    x = 0.3 + sigma * torch.randn(3, *denoiser.image_shape, generator=torch.Generator().manual_seed(1000))
    with torch.no_grad():
        x_0 = denoiser(x, denoiser.schedule.time(-2 * sigma.double().log()), Condition(label)).x_0.flatten(1)
    return x_0[:, :: x_0.shape[1] // 8][:, :8].double()


@pytest.mark.parametrize("case", CASES)
def test_the_denoiser_gives_what_the_public_code_gives(case: str) -> None:
    config = PUBLIC[case]["config"]
    denoiser, state = model_of(config, PUBLIC[case]["names"])
    denoiser.network.load_state_dict(weights_from(state, network_settings(config)))
    head = 128  # which the public count has besides
    assert sum(p.numel() for p in denoiser.network.parameters()) + head == PUBLIC[case]["parameters"]
    label = torch.tensor([1, 4, NO_CLASS]) if denoiser.num_classes else None
    expected = torch.tensor(PUBLIC[case]["values"]).double()
    torch.testing.assert_close(eighth(denoiser.eval(), label), expected, rtol=1e-5, atol=1e-5)


def test_training_steps_are_those_of_the_public_code() -> None:
    """Forced weight normalization, the loss with its uncertainty, and what Adam makes of both, over three steps."""
    config, public = PUBLIC["by_class"]["config"], PUBLIC["training"]
    denoiser, state = model_of(config, PUBLIC["by_class"]["names"])
    denoiser.network.load_state_dict(weights_from(state, network_settings(config)))
    loss = UncertaintyLoss(UniformDensity(), UnitWeighting(), unit_weight=True)
    loss.head.load_state_dict({"weight": state["logvar_linear.weight"]})
    loss.frequencies, loss.phases = state["logvar_fourier.freqs"], state["logvar_fourier.phases"]
    optimizer = torch.optim.Adam([*denoiser.parameters(), *loss.parameters()], lr=0.01, betas=(0.9, 0.99))
    generator, label = torch.Generator().manual_seed(2000), torch.tensor([1, 4, NO_CLASS])
    images = 0.5 * torch.randn(3, 3, 16, 16, generator=generator)
    for step, expected in enumerate(public["losses"], start=1):
        sigma = step * torch.tensor([0.1, 0.7, 3.0]).view(-1, 1, 1, 1)
        force_unit_weights(denoiser)
        force_unit_weights(loss)
        optimizer.zero_grad()
        x_t = images + sigma * torch.randn(images.shape, generator=generator)
        p = denoiser(x_t, denoiser.schedule.time(-2 * sigma.double().log()), Condition(label))
        mean = loss.terms(p, images)["loss"].mean()
        assert float(mean.detach()) == pytest.approx(expected, rel=1e-5)
        (images[0].numel() * mean).backward()  # theirs is the sum over an image
        optimizer.step()
    expected = torch.tensor(public["values"]).double()
    torch.testing.assert_close(eighth(denoiser.eval(), label), expected, rtol=1e-4, atol=1e-4)
    u = loss.log_loss(-2 * torch.tensor([0.01, 0.6, 40.0]).log()).double()
    torch.testing.assert_close(u, torch.tensor(public["logvar"]).double(), rtol=1e-5, atol=1e-5)


CONFIG = PUBLIC["by_class"]["config"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**CONFIG, "resample_filter": [1, 3, 3, 1]}, r"resample_filter=\[1, 3, 3, 1\].*only \[1, 1\]"),
        ({**CONFIG, "channel_mult_emb": 2}, "channel_mult_emb=2"),
        ({**CONFIG, "groups": 8}, "'groups'=8 is not an option"),
        ({**CONFIG, "channels_per_head": 12}, "channels_per_head=12"),
        ({key: value for key, value in CONFIG.items() if key != "label_dim"}, "label_dim"),
        ({**CONFIG, "sigma_data": 0}, "sigma_data"),
        ({**CONFIG, "channel_mult": [1, "2"]}, "channel_mult"),
        ({**CONFIG, "num_blocks": 1.5}, "num_blocks"),
        ({**CONFIG, "clip_act": "256"}, "clip_act"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        denoiser_settings(config)


def test_what_a_configuration_leaves_out_is_as_published() -> None:
    settings = network_settings({"img_resolution": 64, "img_channels": 4, "label_dim": 0})
    assert settings == {
        **{"_target_": "diffusion_lit.model.EDM2UNet", "resolution": 64, "image_channels": 4, "num_classes": None},
        **{"channels": 192, "channel_multipliers": [1, 2, 3, 4], "num_res_blocks": 3, "dropout": 0.0, "clip": 256},
        **{"attention_resolutions": [16, 8], "head_channels": 64, "label_balance": 0.5, "concat_balance": 0.5},
        **{"residual_balance": 0.3, "attention_balance": 0.3},
    }
    assert network_settings({**CONFIG, "clip_act": None})["clip"] is None


def test_a_configuration_is_read_from_the_metadata_of_a_file() -> None:
    """As the script writes it; of other files there is nothing to say, and damage is named."""
    metadata = {"nvlabs": json.dumps({**CONFIG, "class_name": "Precond"})}
    assert described(metadata) == ("edm2", denoiser_settings(CONFIG))
    assert described({}) is None
    with pytest.raises(ValueError, match="is not an option of EDMPrecond"):  # EDM's, which has none of these
        described({"nvlabs": json.dumps({**CONFIG, "class_name": "EDMPrecond"})})
    with pytest.raises(ValueError, match="nvlabs is not JSON"):
        described({"nvlabs": metadata["nvlabs"][:-1]})


def test_weights_of_another_configuration_are_refused_by_name() -> None:
    settings = network_settings(CONFIG)
    _, state = model_of(CONFIG, PUBLIC["by_class"]["names"])
    with pytest.raises(ValueError, match=r"lack unet\.emb_label\.weight"):
        weights_from({name: w for name, w in state.items() if name != "unet.emb_label.weight"}, settings)
    with pytest.raises(ValueError, match=r"have unet\.more"):
        weights_from({**state, "unet.more": torch.zeros(1)}, settings)
