"""The U-Net's building blocks by themselves."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.model import SongUNet, UNet
from diffusion_lit.model.block import GroupNorm


def features_and_norm(mean: float, std: float) -> tuple[Tensor, GroupNorm]:
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm(8, 32)
    nn.init.normal_(norm.weight, 1, 0.3, generator=generator)
    nn.init.normal_(norm.bias, 0, 0.3, generator=generator)
    return mean + std * torch.randn(2, 32, 64, 64, generator=generator), norm


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mean, std", [(0, 1), (0, 300), (30, 1)])
def test_under_autocast_a_norm_is_in_its_inputs_dtype_and_rounds_once(
    mean: float, std: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU's autocast leaves GroupNorm alone; a GPU's turns what reaches torch's function to float32 if it is on."""
    plain, seen = F.group_norm, []

    def group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        seen.append(({x.dtype, weight.dtype, bias.dtype}, torch.is_autocast_enabled("cpu")))
        return plain(x, num_groups, weight, bias, eps)

    monkeypatch.setattr(F, "group_norm", group_norm)
    x, norm = features_and_norm(mean, std)
    x = x.to(dtype)
    with torch.autocast("cpu", dtype):
        y = norm(x)
    assert seen == [({dtype}, False)] and y.dtype == dtype
    exact = plain(x.double(), 8, norm.weight.double(), norm.bias.double(), norm.eps)
    rounding = torch.finfo(dtype).eps  # half of it once for the result, half for its weight and bias
    torch.testing.assert_close(y.double(), exact, rtol=2 * rounding, atol=2 * rounding)


def test_without_autocast_a_norm_is_torchs_to_the_bit() -> None:
    x, norm = features_and_norm(3, 2)
    plain = nn.GroupNorm(8, 32)
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm(x), plain(x))


@pytest.mark.parametrize("kind", [UNet, SongUNet])
def test_all_norms_of_a_network_are_such(kind: Any) -> None:
    network = kind(16, 1, channels=32, channel_multipliers=(1, 2), attention_resolutions=(8,))
    norms = {type(layer) for layer in network.modules() if isinstance(layer, nn.GroupNorm)}
    assert norms == {GroupNorm}
