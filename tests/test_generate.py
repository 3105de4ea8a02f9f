"""What `labels=` and `device=` mean."""

import pytest
import torch
import torch.distributed as dist

from diffusion_lit.generate import choose_device
from diffusion_lit.labels import choose_classes

NUMBERS = ["0", "1", "2", "10"]


@pytest.mark.parametrize(
    ("labels", "num_classes", "names", "chosen"),
    [
        (None, None, None, None),
        (None, 3, None, [0, 1, 2]),
        (2, 3, None, [2]),
        ([2, 0], 3, ["cat", "dog", "hen"], [2, 0]),
        ("dog", 3, ["cat", "dog", "hen"], [1]),
        (["hen", 0, "2"], 3, ["cat", "dog", "hen"], [2, 0, 2]),
        ([10, 2], 4, NUMBERS, [3, 2]),  # classes that are called by numbers are meant by their names
        (3, 4, NUMBERS, [3]),
    ],
)
def test_classes_are_chosen_by_name_or_number(
    labels: object, num_classes: int | None, names: list[str] | None, chosen: list[int] | None
) -> None:
    assert choose_classes(labels, num_classes, names) == chosen


@pytest.mark.parametrize("labels", [3, -1, [0, 7], "cow", [], ["cat", "cow"], 1.5, True])
def test_classes_that_the_model_does_not_have_are_refused(labels: object) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 2 or their names \(cat, dog, hen\), got"):
        choose_classes(labels, 3, ["cat", "dog", "hen"])
    with pytest.raises(ValueError, match="trained without classes; leave labels out"):
        choose_classes(labels, None, None)


def test_a_device_that_is_not_here_is_refused() -> None:
    assert choose_device("cpu") == "cpu" and choose_device("auto") in ("cuda", "cpu")
    with pytest.raises(ValueError, match=r"device=tpu is not available here; choose auto or one of: .*cpu"):
        choose_device("tpu")


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(ValueError, match=r"device=cuda:2 is not available here; .* one of: cuda, cuda:0, cuda:1, cpu"):
        choose_device("cuda:2")
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 3)
    assert [choose_device(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
