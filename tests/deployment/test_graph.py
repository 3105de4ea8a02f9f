"""What a graph says of its inputs, and where it is compared with the model."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffusion_lit.condition import NO_CLASS
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.graph import GraphDenoiser, check_equal
from tests.analytic import build
from tests.networks import NETWORKS, randomise


def graph(null_class: bool, schedule: str = "cosine") -> GraphDenoiser:
    network = NETWORKS["unet"].build(null_class=null_class)
    randomise(network)
    return GraphDenoiser(Denoiser(network, build("schedule", schedule), build("parameterization", "v")).eval())


def test_a_label_may_be_none_where_the_network_knows_hidden_classes() -> None:
    hidden, known = graph(null_class=True), graph(null_class=False)
    assert "; -1 where there is none" in hidden.described(2)["inputs"]["label"]
    assert "-1" not in known.described(2)["inputs"]["label"]
    assert hidden.example(5)[2].tolist() == [0, 1, 2, 0, NO_CLASS] and hidden.example(1)[2].tolist() == [0]
    assert known.example(5)[2].tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("schedule", ["cosine", "vp"])
def test_a_graph_that_is_wrong_at_an_end_is_found(schedule: str) -> None:
    """Of the schedule, or for images without a class."""
    model = graph(null_class=True, schedule=schedule)
    t = model.example(5)[1]
    assert t[0] == 1 and t[-1] == pytest.approx(model.denoiser.schedule.t_min)

    def run(inputs: Sequence[Tensor], spoilt: Tensor, value: float = 0.0) -> list[Tensor]:
        with torch.no_grad():
            return [torch.where(spoilt.view(-1, 1, 1, 1), value, right) for right in model(*inputs)]

    assert check_equal(model, lambda inputs: run(inputs, inputs[1] > 1), "x") == 0
    for wrong in (lambda x, t, label: label == NO_CLASS, lambda x, t, label: t < 0.01, lambda x, t, label: t == 1):
        for value in (0.0, math.nan):
            with pytest.raises(ValueError, match=f"x differs from the model by .*{'nan' if value else ''} in x_0"):
                check_equal(model, lambda inputs, wrong=wrong, value=value: run(inputs, wrong(*inputs), value), "x")  # type: ignore[misc]
