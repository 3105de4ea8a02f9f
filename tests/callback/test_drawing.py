"""Images that are drawn during training are counted, and between a sampler's steps signals are answered."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusion_lit.callback import drawing
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.terminal.interruption import Interrupted
from diffusion_lit.terminal.progress import Progress, activated


def test_the_images_of_all_ranks_are_counted_step_by_step() -> None:
    """Two ranks draw 5 images each in batches of 2, 2 and 1, in four steps a batch."""
    trainer: Any = SimpleNamespace(world_size=2, callbacks=[])
    with activated(Progress("training", None, "steps")) as shown:
        with drawing.drawing(trainer, "FID", 10, DDIMSampler(4)) as on_step:
            phase, done = shown.phase, []
            for images in (2, 2, 1):
                for _ in range(4):
                    on_step(torch.zeros(()), torch.zeros(images, 3, 8, 8))
                done.append(phase.done)
            assert (phase.name, phase.total, phase.unit) == ("FID", 10, "images")
            assert done == [4, 8, 10]
        with drawing.drawing(trainer, "samples", 10, SimpleNamespace()) as on_step:  # type: ignore[arg-type]
            on_step(torch.zeros(()), torch.zeros(2, 3, 8, 8))
            assert shown.phase.done == 0, "how many steps there are is not known"


def test_a_signal_is_answered_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(trainer: Any) -> None:
        raise Interrupted(15)

    monkeypatch.setattr(drawing, "answer_signals", answer)
    trainer: Any = SimpleNamespace(world_size=1, callbacks=[])
    with pytest.raises(Interrupted), drawing.drawing(trainer, "FID", 10, DDIMSampler(4)) as on_step:
        on_step(torch.zeros(()), torch.zeros(2, 3, 8, 8))
