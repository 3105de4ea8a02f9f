"""CLIP, beside torch-fidelity with the same weights, and Pillow's resizing."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_clip as fidelity
from PIL import Image
from torch import Tensor, nn

from diffusion_lit.feature import CLIP
from tests.feature.stand_ins import SmallCLIP, clip_weights, random_images


def test_it_is_the_projected_embedding_of_unit_length(tmp_path: Path) -> None:
    path = clip_weights(tmp_path / "clip.pt")
    network = fidelity.build_model(torch.load(path, weights_only=True), torch.float32).visual
    images = random_images(3, 3, 20, 20)
    pixels = []
    for image in images:
        resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((28, 28), Image.Resampling.BICUBIC)
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        pixels.append((np.asarray(resized) / 255 - mean) / std)
    expected = network(torch.from_numpy(np.stack(pixels)).float().permute(0, 3, 1, 2))
    found = SmallCLIP(str(path))(images)
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-4)


class Program(nn.Module):
    """OpenAI's format: a TorchScript module whose part `visual` is the network."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        return self.visual(images)


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_read_only_if_it_is_openais(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = clip_weights(tmp_path / "clip.pt")
    network = fidelity.build_model(torch.load(plain, weights_only=True), torch.float32).visual
    program = tmp_path / "program.pt"
    torch.jit.trace(Program(network), torch.zeros(1, 3, 28, 28)).save(str(program))
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was run"))
        with pytest.raises(ValueError, match=r"program.pt is damaged, or is not .* \(it is a program"):
            SmallCLIP(str(program))
    checksum = hashlib.sha256(program.read_bytes()).hexdigest()
    monkeypatch.setattr(SmallCLIP, "published", replace(SmallCLIP.published, sha256=checksum))
    images = random_images(2, 3, 20, 20)
    torch.testing.assert_close(SmallCLIP(str(program))(images), SmallCLIP(str(plain))(images))


def test_it_is_openais_vit_l_14_at_336_pixels() -> None:
    """The width, depth and heads of Radford et al. 2021, table 20."""
    assert (CLIP.resolution, CLIP.patch_size, CLIP.num_features) == (336, 14, 768)
    assert (CLIP.width, CLIP.depth, CLIP.num_heads) == (1024, 24, 16)
