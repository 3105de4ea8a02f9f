"""Ways to run a network change neither what it computes nor what a checkpoint holds."""

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.condition import Condition
from diffusion_lit.execution import Execution
from diffusion_lit.model import Network, UNet
from diffusion_lit.model.block import ResBlock
from diffusion_lit.module import DiffusionModule
from diffusion_lit.run import start_table
from tests.launch import config, train_in
from tests.networks import CHANNELS, NETWORKS
from tests.test_training import column

CPU = torch.device("cpu")


def network() -> UNet:
    torch.manual_seed(0)
    made = UNet(8, 1, channels=8, channel_multipliers=(1, 2), attention_resolutions=(4,), num_groups=4, dropout=0.5)
    for parameter in made.parameters():  # the zeroed layers too, so that all of it counts
        nn.init.normal_(parameter, std=0.1)
    return made


def step(net: UNet) -> tuple[Tensor, list[Tensor]]:
    """The output of a training step, with dropout, and its gradients."""
    torch.manual_seed(1)
    out = net(torch.randn(2, 1, 8, 8), torch.tensor([3.0, 500.0]), Condition())
    torch.manual_seed(2)
    out.square().mean().backward()
    return out.detach(), [p.grad for p in net.parameters() if p.grad is not None]


def test_a_recomputed_block_has_the_dropout_it_had() -> None:
    plain, recomputed = network(), network()
    Execution(gradient_checkpointing=True).apply(recomputed, CPU)
    (out, gradients), (same_out, same_gradients) = step(plain), step(recomputed)
    assert torch.equal(out, same_out)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients, strict=True))
    assert plain.state_dict().keys() == recomputed.state_dict().keys()


def test_what_is_recomputed_is_not_kept() -> None:
    """The tensors that wait for the backward pass, counted."""
    kept: dict[bool, int] = {}
    for recomputes in (False, True):
        net = network()
        Execution(gradient_checkpointing=recomputes).apply(net, CPU)
        kept[recomputes] = 0

        def pack(tensor: Tensor, recomputes: bool = recomputes) -> Tensor:
            kept[recomputes] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(torch.randn(2, 1, 8, 8), torch.zeros(2), Condition())
    assert kept[True] < 0.4 * kept[False]


def test_channels_last_is_how_weights_lie_and_not_what_they_are() -> None:
    plain, other = network().eval(), network().eval()  # without dropout, which is drawn as images lie in memory
    Execution(channels_last=True).apply(other, CPU)
    conv = list(other.last.children())[-1]
    assert isinstance(conv, nn.Conv2d) and conv.weight.is_contiguous(memory_format=torch.channels_last)
    (out, gradients), (same_out, same_gradients) = step(plain), step(other)
    torch.testing.assert_close(out, same_out)
    torch.testing.assert_close(gradients, same_gradients)


def test_shared_out_weights_stay_as_they_lie_and_images_do_not() -> None:
    """FSDP2 takes no others."""
    plain, other = network().eval(), network().eval()
    Execution(channels_last=True).apply(other, CPU, sharded=True)
    seen: list[Tensor] = []
    for block in other.modules():
        if isinstance(block, ResBlock):
            block.conv_2.register_forward_hook(lambda *args: seen.append(args[2]))
    (out, gradients), (same_out, same_gradients) = step(plain), step(other)
    assert len(seen) > 5 and all(images.is_contiguous(memory_format=torch.channels_last) for images in seen)
    assert all(p.is_contiguous() for p in other.parameters())
    torch.testing.assert_close(out, same_out)
    torch.testing.assert_close(gradients, same_gradients)


class NoBlocks(Network):
    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("option", "sharded"), [("compile", False), ("gradient_checkpointing", False), ("channels_last", True)]
)
def test_a_network_that_lists_no_blocks_is_refused(option: str, sharded: bool) -> None:
    with pytest.raises(ValueError, match=rf"execution.{option}=true works block by block, and NoBlocks has none"):
        Execution(**{option: True}).apply(NoBlocks(), CPU, sharded)


def test_a_machine_that_cannot_compile_is_refused(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("no compiler\nis here")

    monkeypatch.setattr(torch, "compile", lambda function: no_compiler)
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match=r"torch cannot compile here \(no compiler\); use execution\.compile=false"):
        Execution(compile=True).apply(network(), CPU)
    assert "trying the compiler" in caplog.text  # announced before the wait


@pytest.mark.parametrize(("workers", "compiles"), [(0, False), (0, True), (2, False), (2, True)])
def test_what_the_first_step_waits_for_is_said(
    workers: int, compiles: bool, monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path
) -> None:
    """Until it is taken a bar stands still."""
    monkeypatch.setattr(start_table, "rows", lambda *_: [("model", "tiny")])
    cfg = config(tmp_path, f"data.num_workers={workers}", f"execution.compile={compiles}")
    module = DiffusionModule.__new__(DiffusionModule)
    with caplog.at_level(logging.INFO):
        start_table.StartTable(cfg).on_train_start(SimpleNamespace(is_global_zero=True), module)  # type: ignore[arg-type]
    said = caplog.messages[-1]
    assert said.startswith("taking the first step")
    assert (f"starts {workers} loading processes" in said, "compiles the network" in said) == (workers > 0, compiles)


def test_a_run_takes_the_settings_together(tmp_path: Path) -> None:
    """They leave the run's numbers, and the form of its checkpoint, alone."""
    options = ("trainer.max_steps=2", "callback.fid=null", "callback.sample_grid=null", "trainer.log_every_n_steps=1")
    losses, names = [], []
    for run, more in (
        ("plain", ()),
        ("other", ("execution.gradient_checkpointing=true", "execution.channels_last=true")),
    ):
        train_in(tmp_path / run, *options, *more)
        losses.append(list(column(tmp_path / run, "train/loss").values()))
        names.append(load_checkpoint(tmp_path / run)["state_dict"].keys())
    assert names[0] == names[1] and len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("first", ["true", "false"])
def test_a_resumed_run_may_lay_weights_out_otherwise(first: str, optimizer: str, tmp_path: Path) -> None:
    options = ("callback.fid=null", "callback.sample_grid=null", f"optimizer={optimizer}", "lr_schedule=constant")
    train_in(tmp_path / "whole", *options, "trainer.max_steps=4")
    train_in(tmp_path / "part", *options, "trainer.max_steps=2", f"execution.channels_last={first}")
    other = "false" if first == "true" else "true"
    resume = ("trainer.max_steps=4", f"execution.channels_last={other}", f"resume='{tmp_path / 'part'}'")
    train_in(tmp_path / "rest", *resume, tiny=())
    whole, rest = (load_checkpoint(tmp_path / run)["state_dict"] for run in ("whole", "rest"))
    for name, w in whole.items():
        torch.testing.assert_close(rest[name], w, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_is_recomputed_is_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a compiler that takes the graphs and writes no code."""
    monkeypatch.setattr("diffusion_lit.execution.check_compiler", lambda device: None)
    plain, compiled = NETWORKS["dit"].build(), NETWORKS["dit"].build()
    for block in compiled.blocks():
        monkeypatch.setattr(block, "compile", partial(block.compile, backend="aot_eager"))
    Execution(compile=True, gradient_checkpointing=True).apply(compiled, CPU)
    counters.clear()
    x, t = torch.randn(2, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3.0, 500.0])
    outputs = [net(x, t, Condition(torch.tensor([0, 1]))) for net in (plain, compiled)]
    for output in outputs:
        output.sum().backward()
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*([p.grad for p in net.parameters()] for net in (plain, compiled)))
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]


@pytest.mark.slow
def test_a_compiled_network_trains_alike(tmp_path: Path) -> None:
    plain, compiled = network().eval(), network().eval()  # without dropout, whose compiled draws are others
    Execution(compile=True, gradient_checkpointing=True).apply(compiled, CPU)
    counters.clear()
    (out, gradients), (same_out, same_gradients) = step(plain), step(compiled)
    assert counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(out, same_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, same_gradients, rtol=1e-4, atol=1e-5)
