"""In which proportions classes are drawn."""

import pytest

from diffusion_lit.evaluation import mixed_labels


@pytest.mark.parametrize("num_samples", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("counts", [[5], [1, 1], [8, 8, 8], [900, 90, 9, 1], [3, 0, 2], [17, 19, 18]])
def test_labels_are_in_the_proportions_of_the_reference(counts: list[int], num_samples: int) -> None:
    labels = mixed_labels(counts, num_samples)
    assert len(labels) == num_samples
    for c, count in enumerate(counts):
        assert abs(labels.count(c) - count * num_samples / sum(counts)) < 1


def test_classes_are_evenly_mixed() -> None:
    """Any prefix has the proportions too, within an image of each class: no rank and no batch has a block of one."""
    assert mixed_labels([4, 4, 4], 9) == [0, 1, 2] * 3
    counts = [60, 30, 10]
    labels = mixed_labels(counts, 100)
    for end in range(1, 101):
        for c, count in enumerate(counts):
            assert abs(labels[:end].count(c) - count * end / 100) <= 1
