"""Which images a likelihood is of, and its mean."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytest import approx
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.data import ArrayImages
from diffusion_lit.evaluation import bits_per_dim
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.image_set import StoredImages

SORTED = StoredImages(ArrayImages(torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(100) // 10))


class Brightness(Likelihood):
    def parts(self, denoiser: Any, x_0: Tensor, noise: Callable[[], Tensor], condition: Condition) -> dict[str, Tensor]:
        assert condition.label is not None and noise().shape == x_0.shape
        return {"brightness": ((x_0.flatten() + 1) * 127.5).round(), "label": condition.label}


def test_images_sorted_by_class_are_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spaced, whatever the batch size and the number of processes; all of them where there are no more."""
    model: Any = SimpleNamespace(num_classes=10)
    expected = torch.arange(0, 100, 5).double()
    figures = Brightness(num_images=20, batch_size=3).measure(model, SORTED, "cpu")
    assert figures["brightness"].value == approx(float(expected.mean()), rel=1e-6)
    assert figures["brightness"].error == approx(float(expected.std()) / 20**0.5, rel=1e-6)
    assert figures["label"].value == approx(4.5)
    assert Brightness(num_images=1000).measure(model, SORTED, "cpu")["brightness"].value == approx(49.5)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(bits_per_dim, "rank_and_size", lambda rank=rank: (rank, 3))
        monkeypatch.setattr(bits_per_dim, "gathered_objects", lambda own: shares.append(own) or [own])
        Brightness(num_images=20).measure(model, SORTED, "cpu")
    assert torch.cat([share["brightness"] for share in shares]).sort().values.equal(expected)
