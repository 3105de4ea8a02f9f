"""Muon: its steps against a literal reference and PyTorch's own, its groups in every network, and a resumed run."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.model import Network
from diffusion_lit.optimizer import Muon
from diffusion_lit.optimizer.orthogonal import orthogonal
from tests.launch import train_in
from tests.networks import NETWORKS

SHAPES = [(16, 4, 3, 3), (24, 8), (8, 24), (16, 4, 3, 3), (5,), (3, 7)]
"""Kernels of one shape, higher and wider matrices; a bias and an embedding, which are not `MATRICES`."""
MATRICES = slice(0, 4)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def steps(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """With gradients that are known from the number of the step alone."""
    for number in range(first, last):
        generator = torch.Generator().manual_seed(number)
        for p in weights:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def muon(weights: list[nn.Parameter], **settings: Any) -> Muon:
    return Muon(weights, weights[MATRICES], **settings)


def test_orthogonal_matrices_have_singular_values_near_one_and_the_singular_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((12, 40), (40, 12), (8, 64)):
        matrices = torch.randn(3, rows, columns, generator=generator) * torch.tensor([1e-4, 1.0, 1e4]).view(3, 1, 1)
        found = orthogonal(matrices)
        u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
        along = u.mT @ found @ vt.mT  # diagonal in the singular vectors' own coordinates
        values = along.diagonal(dim1=1, dim2=2)
        assert values.min() > 0.65 and values.max() < 1.25
        assert (along - torch.diag_embed(values)).abs().max() < 1e-4
    assert torch.equal(orthogonal(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


def test_each_step_equals_a_literal_one() -> None:
    """One matrix at a time in float64, as the papers write it."""
    lr, momentum, decay = 0.1, 0.9, 0.3
    weights = parameters()
    expected = [p.detach().double() for p in weights]
    steps(weights, muon(weights, lr=lr, momentum=momentum, weight_decay=decay), 0, 3)
    means = [torch.zeros_like(w) for w in expected]
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        for i, shape in enumerate(SHAPES):
            g = torch.randn(shape, generator=generator).double()
            if i not in range(4):
                continue
            means[i] = momentum * means[i] + (1 - momentum) * g
            x = (momentum * means[i] + (1 - momentum) * g).reshape(shape[0], -1)
            rows, columns = x.shape
            x = x / x.norm()
            for _ in range(5):
                x = 3.4445 * x - 4.775 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
            expected[i] = expected[i] - lr * decay * expected[i]
            expected[i] = expected[i] - lr * math.sqrt(max(1, rows / columns)) * x.reshape(shape)
    for p, w in zip(weights[MATRICES], expected[MATRICES], strict=True):
        torch.testing.assert_close(p.detach().double(), w, rtol=1e-4, atol=1e-5)


def test_a_plain_matrix_moves_as_by_pytorch_s_and_the_rest_as_by_adamw() -> None:
    """PyTorch's Muon computes in bfloat16."""
    ours, theirs = parameters(), parameters()
    adam = {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}
    own = {"lr": 0.05, "adam_lr": 1e-2, "momentum": 0.9, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}
    steps(ours, muon(ours, **own), 0, 3)
    steps(theirs, torch.optim.Muon(theirs[1:3], lr=0.05, momentum=0.9, weight_decay=0.2), 0, 3)
    steps(theirs, torch.optim.AdamW(theirs[4:], **adam), 0, 3)  # type: ignore[arg-type]
    for i in (1, 2):
        torch.testing.assert_close(ours[i], theirs[i], rtol=0, atol=2e-3)
    for i in (4, 5):
        torch.testing.assert_close(ours[i], theirs[i], rtol=1e-5, atol=1e-6)


def test_what_has_no_gradient_stays_as_it_is() -> None:
    weights = parameters()
    before = [p.detach().clone() for p in weights]
    optimizer = muon(weights)
    weights[0].grad, weights[4].grad = torch.ones(SHAPES[0]), torch.ones(SHAPES[4])
    optimizer.step()
    moved = [not torch.equal(p, w) for p, w in zip(weights, before, strict=True)]
    assert moved == [True, False, False, False, True, False]


def test_its_state_is_plain_and_continues_to_the_bit() -> None:
    through, first, second = parameters(), parameters(), parameters()
    steps(through, muon(through), 0, 6)
    optimizer = muon(first)
    steps(first, optimizer, 0, 3)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "weights": [p.data for p in first]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for p, w in zip(second, saved["weights"], strict=True):
        p.data.copy_(w)
    resumed = muon(second)
    resumed.load_state_dict(saved["optimizer"])
    steps(second, resumed, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(through, second, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_matrices_of_a_network_are_what_lies_within(name: str) -> None:
    network = NETWORKS[name].build(**({"augmentation_dim": 9} if NETWORKS[name].augments else {}))
    names = {id(p): key for key, p in network.named_parameters()}
    matrices = [names[id(p)] for p in network.matrices()]
    inside = [key.partition(".")[0] for key in matrices]
    assert len(set(matrices)) == len(matrices) and all(p.ndim > 1 for p in network.matrices())
    assert set(inside) <= {
        "down",
        "middle",
        "up",
        "layers",
        "reduce",
        "enlarge",
    }
    left = {key.partition(".")[0] for key, p in network.named_parameters() if p.ndim > 1 and key not in matrices}
    ends = {"first", "last", "time", "label", "augmentation", "noise", "embedding", "pyramid"}
    assert {"first", "last", "label"} <= left <= ends
    assert sum(p.numel() for p in network.matrices()) > 0.5 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"lr": -1}, r"optimizer\.lr must be at least 0, got -1"),
        ({"adam_lr": -1}, r"optimizer\.adam_lr"),
        ({"weight_decay": float("nan")}, r"optimizer\.weight_decay .* nan"),
        ({"momentum": 1}, r"optimizer\.momentum .* momentum=1 "),
        ({"betas": (0.9, 1.0)}, r"betas=\[0\.9, 1\.0\]"),
        ({"betas": (0.9,)}, r"betas=\[0\.9\]"),
        ({"matrices": []}, r"no matrices in the network.*optimizer=adamw"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    weights = parameters()
    with pytest.raises(ValueError, match=words):
        Muon(weights, **{"matrices": weights[MATRICES], **settings})


def test_rows_shared_out_over_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lit.optimizer.muon.DTensor", Tensor)
    with pytest.raises(ValueError, match=r"strategy=fsdp.*strategy=ddp, or optimizer=adamw"):
        muon(parameters())


def test_a_run_trains_with_it_and_resumes_to_the_bit(tmp_path: Path) -> None:
    """Both groups follow the learning-rate schedule."""
    options = ("optimizer=muon", "callback.fid=null", "callback.sample_grid=null", "lr_schedule.num_steps=10")
    trainer = train_in(tmp_path / "through", *options, "trainer.max_steps=4")
    assert trainer is not None
    network = trainer.lightning_module.denoiser.network
    assert isinstance(network, Network)
    ours = [id(p) for p in trainer.optimizers[0].param_groups[0]["params"]]
    assert ours == [id(p) for p in network.matrices()]
    train_in(tmp_path / "begun", *options, "trainer.max_steps=2")
    train_in(tmp_path / "resumed", "trainer.max_steps=4", f"resume='{tmp_path / 'begun'}'", tiny=())
    through, resumed = load_checkpoint(tmp_path / "through"), load_checkpoint(tmp_path / "resumed")
    for key in ("state_dict", "ema"):
        assert all(torch.equal(w, resumed[key][name]) for name, w in through[key].items())
    rates = [group["lr"] for group in resumed["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([0.02 * (0.01 + 0.99 * 0.3), 1e-3 * (0.01 + 0.99 * 0.3)])
