"""Buffers, and what is frozen, keep their values in a module of reduced precision; and what is computed from them."""

import copy
import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.plugins import HalfPrecision
from torch import Tensor, nn

from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.fixed_precision import FixedPrecision
from diffusion_lit.loss import UncertaintyLoss
from diffusion_lit.model.embedding import TimeEmbedding
from diffusion_lit.model.song_block import FourierEmbedding
from diffusion_lit.parameterization import EpsParameterization
from diffusion_lit.schedule import LinearSchedule
from diffusion_lit.weighting import UnitWeighting
from tests.analytic import Fake
from tests.launch import config

HALF = HalfPrecision("bf16-true")


class Tables(FixedPrecision):
    """One buffer that is saved, two that are not, a parameter and a submodule of its own precision."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("saved", torch.tensor([1 / 3], dtype=torch.float32))
        self.register_buffer("exact", torch.tensor([1 / 3], dtype=torch.float64), persistent=False)
        self.register_buffer("absent", None, persistent=False)
        self.weight = nn.Parameter(torch.ones(2))
        self.inner = nn.BatchNorm1d(2)


def held(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def same(module: nn.Module, before: dict[str, Tensor]) -> bool:
    after = dict(module.named_buffers())
    return all(after[name].dtype == table.dtype and torch.equal(after[name], table) for name, table in before.items())


def test_buffers_keep_dtype_and_value_and_all_else_follows() -> None:
    module = nn.ModuleList([Tables()])
    own = {name: table for name, table in held(module).items() if "inner" not in name}
    for change in (module.half, module.bfloat16, module.double, lambda: module.to(torch.float16)):
        change()
        assert same(module, own)
        assert len({p.dtype for p in module.parameters()} | {module[0].inner.running_mean.dtype}) == 1
    assert next(module.parameters()).dtype == torch.float16
    assert list(module.state_dict())[:2] == ["0.weight", "0.saved"] and "0.exact" not in module.state_dict()
    twin = copy.deepcopy(module).bfloat16()
    assert same(twin, own) and twin[0].saved is not module[0].saved
    module[0].saved.zero_()
    module.load_state_dict(twin.state_dict())
    assert same(module, own) and module[0].absent is None


def test_a_frozen_parameter_keeps_dtype_and_value_too() -> None:
    """So do random frequencies, and what is trained beside them does not."""
    module = nn.ModuleList([FourierEmbedding(8), nn.Linear(8, 2)])
    exact, c_noise = module[0].frequencies.detach().clone(), torch.tensor([1.1])
    expected = module[0](c_noise)
    for change in (module.half, module.bfloat16, module.double, lambda: HALF.convert_module(module)):
        change()
        assert module[0].frequencies.dtype == torch.float32 and torch.equal(module[0].frequencies, exact)
        assert module[1].weight.dtype != torch.float32
    with HALF.forward_context():
        assert torch.equal(module[0](c_noise), expected)
    assert module.to("meta", torch.float16)[0].frequencies.device.type == "meta"


def test_buffers_follow_to_another_device() -> None:
    """Their values too, also where those of parameters are left behind; from the meta device none come back."""
    module = Tables()
    own = {name: table for name, table in held(module).items() if "inner" not in name}
    assert same(module.to_empty(device="cpu"), own)
    module.to("meta", torch.bfloat16)
    assert (module.exact.device.type, module.exact.dtype, module.weight.dtype) == (
        "meta",
        torch.float64,
        torch.bfloat16,
    )
    with pytest.raises(NotImplementedError, match="no data"):
        module.to_empty(device="cpu")


@pytest.mark.parametrize("settings", [("loss=uncertainty", "density=importance"), ("schedule=edm", "augmentation=edm")])
def test_no_buffer_of_a_model_is_rounded(settings: tuple[str, ...], tmp_path: Path) -> None:
    """Nor built in the default precision: of everything that the module trains with, as Lightning builds it."""
    cfg = config(tmp_path, *settings)
    fit_model_to_data(cfg, instantiate(cfg.data))
    module = instantiate(cfg.module)
    with HALF.module_init_context():
        built = instantiate(cfg.module)
    before = held(module)
    before |= {name: table.fill_(1 / 3) for name, table in before.items() if name.endswith("history")}
    module.load_state_dict(before, strict=False)
    assert len(before) >= 1 and same(built, {name: table for name, table in before.items() if "history" not in name})
    assert same(HALF.convert_module(module), before)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_times_angle_is_exact_whatever_the_networks_precision(dtype: torch.dtype) -> None:
    """Up to 1000 radians, to 1e-4: in bfloat16 it would be off by up to 2. The layers read it rounded."""
    seen: list[Tensor] = []
    embedding = TimeEmbedding(16, 8).to(dtype)
    embedding.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    c_noise = torch.tensor([999.0, 731.37, -1.7])
    with HALF.forward_context():
        embedding(c_noise)
    angle = c_noise.double()[:, None] * torch.exp(-math.log(10_000) * torch.arange(8, dtype=torch.float64) / 8)
    expected = torch.cat([angle.sin(), angle.cos()], 1)
    assert seen[0].dtype == dtype
    torch.testing.assert_close(seen[0].double(), expected, rtol=0, atol=max(1e-4, torch.finfo(dtype).eps / 2))


def test_learned_uncertainty_is_the_same_under_autocast() -> None:
    class Smooth(Fake):
        def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
            return torch.sin(2 * x + c_noise.view(-1, 1, 1, 1) / 300)

    loss, denoiser = (
        UncertaintyLoss(UniformDensity(), UnitWeighting()),
        Denoiser(Smooth(), LinearSchedule(), EpsParameterization()),
    )
    nn.init.normal_(loss.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    x_0 = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    plain = loss(denoiser, x_0, generator=torch.Generator().manual_seed(3)).loss
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(denoiser, x_0, generator=torch.Generator().manual_seed(3)).loss
    assert mixed.dtype == torch.float32 and torch.equal(mixed, plain)
