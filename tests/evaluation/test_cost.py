"""What drawing costs, counted on some images, and said of those that are missing."""

import logging

import pytest
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.evaluation.cells import Cell
from diffusion_lit.evaluation.cost import announce, estimate
from diffusion_lit.evaluation.image_set import DrawnImages
from tests.test_sampling import tiny


@pytest.mark.parametrize("most", [16, 8])
def test_calls_are_counted_whether_or_not_the_first_batch_fits(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = tiny()
    forward = setup.denoiser.network.forward  # type: ignore[attr-defined]

    def held(x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        if len(x) > most:
            raise MemoryError
        return forward(x, c_noise, condition)

    monkeypatch.setattr(setup.denoiser.network, "forward", held)  # type: ignore[attr-defined]
    calls, seconds = estimate(Cell({}, DrawnImages(setup, {}, 0, 40, setup.by_index)), 250)
    assert calls == {"calls_per_image": 3} and 0 < seconds < 10


def test_what_is_there_already_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    cell = Cell({"steps": 3}, DrawnImages(tiny(), {}, 0, 40, None))
    with caplog.at_level(logging.INFO):
        for missing in (0, 5):
            announce(cell, ({"calls_per_image": 3}, 60.0), missing)
    assert caplog.messages == ["drawing 5 images (steps=3), 3 network calls each: about 5 min"]
