"""DINOv2, beside torch-fidelity's transformer with the same weights, and Pillow's resizing."""

from pathlib import Path

import numpy as np
import torch
import torch_fidelity.feature_extractor_clip as fidelity
from PIL import Image
from torch import Tensor, nn

from diffusion_lit.feature import DINOv2
from diffusion_lit.feature.vision_transformer import VisionTransformer
from tests.feature.stand_ins import SmallDINOv2, dinov2_weights, random_images


def pre_norm_transformer(state: dict[str, Tensor], positions: Tensor) -> nn.Module:
    """The same function by CLIP's code: layer scale and the patches' bias are absorbed by what they are added to."""
    small = SmallDINOv2
    width = small.num_features
    network = fidelity.VisionTransformer(small.resolution, small.patch_size, width, small.depth, small.num_heads, 1)
    network.ln_pre, network.proj = nn.Identity(), None
    bias = torch.cat([torch.zeros(1, width), state["patch_embed.proj.bias"].expand(16, -1)])
    found = {
        "class_embedding": state["cls_token"][0, 0],
        "positional_embedding": positions + bias,
        "conv1.weight": state["patch_embed.proj.weight"],
        "ln_post.weight": state["norm.weight"],
        "ln_post.bias": state["norm.bias"],
    }
    for i, block in enumerate(network.transformer.resblocks):
        block.mlp.gelu = nn.GELU()
        old, new = f"blocks.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            found[f"{new}.ln_1.{kind}"] = state[f"{old}.norm1.{kind}"]
            found[f"{new}.ln_2.{kind}"] = state[f"{old}.norm2.{kind}"]
            found[f"{new}.attn.in_proj_{kind}"] = state[f"{old}.attn.qkv.{kind}"]
            found[f"{new}.mlp.c_fc.{kind}"] = state[f"{old}.mlp.fc1.{kind}"]
            for layer, source, scale in (("attn.out_proj", "attn.proj", "ls1"), ("mlp.c_proj", "mlp.fc2", "ls2")):
                values = state[f"{old}.{source}.{kind}"]
                gamma = state[f"{old}.{scale}.gamma"]
                found[f"{new}.{layer}.{kind}"] = gamma.reshape(-1, *[1] * (values.ndim - 1)) * values
    network.load_state_dict(found)
    for layer in network.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6
    return network.eval()


def cubic(x: float) -> float:
    """Keys' kernel as torch has it, a = -3/4."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0


def interpolation(trained: int, side: int) -> Tensor:
    """DINOv2's resizing along one axis: places are scaled by (side + 0.1) / trained, the border repeats."""
    matrix = torch.zeros(side, trained)
    for i in range(side):
        place = (i + 0.5) * trained / (side + 0.1) - 0.5
        for j in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[i, min(max(j, 0), trained - 1)] += cubic(place - j)
    return matrix


def test_it_is_the_class_token_of_a_pre_norm_transformer(tmp_path: Path) -> None:
    path = dinov2_weights(tmp_path / "dinov2.pth")
    state = torch.load(path, weights_only=True)
    axis = interpolation(6, 4)
    grid = torch.einsum("ij,kl,jlc->ikc", axis, axis, state["pos_embed"][0, 1:].unflatten(0, (6, 6)))
    network = pre_norm_transformer(state, torch.cat([state["pos_embed"][0, :1], grid.flatten(0, 1)]))
    images = random_images(3, 3, 20, 20)
    pixels = []
    for image in images:
        resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((28, 28), Image.Resampling.BICUBIC)
        pixels.append((np.asarray(resized) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    expected = network(torch.from_numpy(np.stack(pixels)).float().permute(0, 3, 1, 2))
    assert expected.std() > 0.1
    torch.testing.assert_close(SmallDINOv2(str(path))(images), expected, rtol=1e-4, atol=1e-4)


def test_the_published_file_has_these_parameters() -> None:
    """1,217,586,395 bytes, of which 112 kB are not numbers; 1,024 are the token of masked patches in training."""
    with torch.device("meta"):
        network = VisionTransformer(518, DINOv2.patch_size, DINOv2.num_features, DINOv2.depth, DINOv2.num_heads)
    parameters = sum(p.numel() for p in network.parameters()) + 1024
    assert parameters == 304_368_640 and 4 * parameters < 1_217_586_395 < 4 * parameters + 2e5
