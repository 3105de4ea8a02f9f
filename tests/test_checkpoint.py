"""Models from checkpoints."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.condition import Condition
from tests.launch import config


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_loaded_model_is_in_evaluation_mode(weights: str, tmp_path: Path) -> None:
    """Its dropout is off: what it says of an image is the same each time."""
    data = ("model.resolution=8", "model.image_channels=1", "model.num_classes=10", "model.augmentation_dim=0")
    cfg = config(tmp_path, *data, "model.dropout=0.5", "space={_target_: diffusion_lit.space.PixelSpace}")
    model = instantiate(cfg.denoiser)
    generator = torch.Generator().manual_seed(0)
    state = {f"denoiser.{name}": torch.randn(w.shape, generator=generator) for name, w in model.named_parameters()}
    recorded = {"denoiser": OmegaConf.to_container(cfg.denoiser, resolve=True)}
    torch.save({"config": recorded, "ema": state, "state_dict": state}, tmp_path / "last.ckpt")
    denoiser, _ = load_denoiser(tmp_path / "last.ckpt", weights)
    assert not any(module.training for module in denoiser.modules())
    x_t, t, condition = torch.ones(2, 1, 8, 8), torch.full((2, 1, 1, 1), 0.5), Condition(torch.tensor([3, 7]))
    with torch.no_grad():
        assert torch.equal(denoiser(x_t, t, condition).x_0, denoiser(x_t, t, condition).x_0)
        assert not torch.equal(denoiser.train()(x_t, t, condition).x_0, denoiser(x_t, t, condition).x_0)
