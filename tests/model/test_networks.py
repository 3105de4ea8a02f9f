"""What every network promises, whatever it is built of."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_lit.model
from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.model import Network
from diffusion_lit.model.magnitude import force_unit_weights, normalized
from tests.networks import CHANNELS, NETWORKS, NUM_CLASSES, randomise

BATCH = 3

walk = pytest.mark.parametrize("name", NETWORKS)


def inputs(height: int = 8, width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, CHANNELS, height, width, generator=generator), torch.tensor([0.0, 10.5, 999.0])


def labels() -> Condition:
    return Condition(torch.tensor([0, NUM_CLASSES - 1, NO_CLASS]))


def random_network(name: str, **settings: Any) -> Network:
    network = NETWORKS[name].build(**settings)
    randomise(network)
    return network


def test_every_network_is_walked() -> None:
    classes = {cls for cls in vars(diffusion_lit.model).values() if inspect.isclass(cls) and issubclass(cls, Network)}
    assert {tiny.kind for tiny in NETWORKS.values()} == classes - {Network}


@walk
def test_it_says_what_it_is_and_gives_what_it_says(name: str) -> None:
    x, t = inputs()
    for learn_variance in (False, True):
        network = random_network(name, learn_variance=learn_variance)
        assert network.image_shape == (CHANNELS, 8, 8) and network.num_classes == NUM_CLASSES
        assert network.learn_variance is learn_variance and network.augmentation_dim == 0
        output = network(x, t, labels())
        assert output.shape == (BATCH, CHANNELS * (1 + learn_variance), 8, 8) and output.dtype == torch.float32
        assert output.isfinite().all() and output.std() > 0.01
        assert torch.equal(output, network(x, t, labels()))


@walk
def test_hidden_labels_are_those_of_a_network_that_is_given_none(name: str) -> None:
    x, t = inputs()
    network = random_network(name)
    hidden = network(x, t, UNCONDITIONAL)
    torch.testing.assert_close(network(x, t, labels().null()), hidden)
    torch.testing.assert_close(network(x, t, Condition(torch.full((BATCH,), NUM_CLASSES))), hidden)  # as in older code
    shown = network(x, t, labels())
    torch.testing.assert_close(shown[2], hidden[2])
    assert (shown[:2] - hidden[:2]).abs().amax((1, 2, 3)).min() > 1e-4
    assert set(network.class_parameters()) <= {name for name, _ in network.named_parameters()}
    assert list(network.class_parameters())

    without = random_network(name, num_classes=None)
    assert without.num_classes is None and not list(without.class_parameters())
    assert torch.equal(without(x, t, labels()), without(x, t, UNCONDITIONAL))


@walk
def test_images_wider_than_high(name: str) -> None:
    x, t = inputs(8, 16)
    try:
        network = random_network(name, resolution=[8, 16])
    except TypeError:
        pytest.skip("takes squares alone")
    assert network.image_shape == (CHANNELS, 8, 16)
    output = network(x, t, labels())
    assert output.shape == x.shape
    other = x.clone()
    other[:, :, :, 8:] += 1  # seen in the other half too
    assert (network(other, t, labels()) - output)[..., :8].abs().max() > 1e-5


@walk
def test_mixed_and_half_precision_are_close_to_float32(name: str) -> None:
    x, t = inputs()
    network = random_network(name)
    exact = network(x, t, labels())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(x, t, labels()).float()
    half = network.to(torch.bfloat16)(x.bfloat16(), t, labels()).float()
    for output in (mixed, half):
        assert output.isfinite().all() and (output - exact).abs().max() < 0.1 * exact.abs().max()


@walk
def test_double_precision_is_close_to_float32(name: str) -> None:
    """`trainer.precision=64-true`: a step's forward and backward."""
    x, t = inputs()
    network = random_network(name)
    exact = network(x, t, labels())
    network.double()
    output = network(x.double(), t, labels())
    torch.testing.assert_close(output.float(), exact, rtol=1e-4, atol=1e-5)
    output.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.dtype == torch.float64 for gradient in gradients)
    force_unit_weights(network)


@walk
def test_weights_are_written_and_read(name: str) -> None:
    x, t = inputs()
    network, other = random_network(name), NETWORKS[name].build(seed=1)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x, t, labels()), network(x, t, labels()))
    stored = network.state_dict().keys() - {name for name, _ in network.named_parameters()}
    assert stored <= {"features.frequencies", "features.phases"}  # random draws are stored, tables are not


@walk
def test_blocks_are_parts_that_do_not_overlap(name: str) -> None:
    network = NETWORKS[name].build()
    blocks = list(network.blocks())
    parts = [part for block in blocks for part in block.modules()]
    assert blocks and len(set(map(id, parts))) == len(parts)
    inside = sum(p.numel() for block in blocks for p in block.parameters())
    assert inside > 0.5 * sum(p.numel() for p in network.parameters())
    assert all(any(block is part for part in network.modules()) for block in blocks)


@walk
def test_every_parameter_learns_from_the_second_step_on(name: str) -> None:
    """At first only what ends in zeros does; a later step must reach all, from initial weights as training has them."""
    (x, t), condition = inputs(), labels()
    network = NETWORKS[name].build(**({"augmentation_dim": 9} if NETWORKS[name].augments else {})).train()
    condition = Condition(condition.label, torch.randn(BATCH, 9))
    learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(learned.values(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (network(x, t, condition) - x).square().mean().backward()
        optimizer.step()
    assert [name for name, p in learned.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", [name for name, tiny in NETWORKS.items() if tiny.augments])
def test_augment_labels_change_the_output_and_zeros_do_not(name: str) -> None:
    x, t = inputs()
    network = random_network(name, augmentation_dim=9)
    assert network.augmentation_dim == 9
    plain = network(x, t, labels())
    torch.testing.assert_close(network(x, t, Condition(labels().label, torch.zeros(BATCH, 9))), plain)
    assert (network(x, t, Condition(labels().label, torch.ones(BATCH, 9))) - plain).abs().max() > 1e-4


class Positional(nn.Module):
    """With tensors for arguments, which is what an exported program takes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        return self.network(x, c_noise, Condition(label))


@pytest.mark.slow
@walk
def test_a_compiler_finds_one_graph_in_it(name: str) -> None:
    """A break would have each piece compiled for each shape, until the compiler gives up."""
    (x, t), network = inputs(), random_network(name)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, t, labels()), network(x, t, labels()))


def test_a_compiler_finds_one_graph_in_unit_weights() -> None:
    """The kind of layer that EDM2 is built of."""
    compiled = torch.compile(normalized, backend="eager", fullgraph=True)
    x = inputs()[0]
    assert torch.equal(compiled(x, range(1, 4)), normalized(x, range(1, 4)))


@pytest.mark.slow
@walk
def test_it_can_be_exported_for_any_batch(name: str) -> None:
    (x, t), label = inputs(), torch.tensor([0, NUM_CLASSES - 1, NO_CLASS])
    network = random_network(name)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Positional(network), (x, t, label), dynamic_shapes=({0: batch},) * 3)
    output = program.module()(x[:2], t[:2], label[:2])
    torch.testing.assert_close(output, network(x, t, labels())[:2], rtol=1e-4, atol=1e-5)
