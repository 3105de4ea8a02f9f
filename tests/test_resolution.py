"""How a resolution is said."""

import pytest

from diffusion_lit.resolution import height_and_width, multiples_near, shortest


@pytest.mark.parametrize(("resolution", "sides"), [(64, (64, 64)), ([48, 64], (48, 64)), ((1, 2), (1, 2))])
def test_one_number_is_both_sides(resolution: int | list[int], sides: tuple[int, int]) -> None:
    assert height_and_width(resolution) == sides
    assert height_and_width(shortest(*sides)) == sides


def test_a_square_is_said_by_one_number() -> None:
    assert shortest(8, 8) == 8 and shortest(8, 16) == [8, 16]


@pytest.mark.parametrize("resolution", [0, -8, [8], [8, 0], [8, 8, 8], [8, 8.5], "64", True, [True, 8]])
def test_anything_else_is_refused(resolution: object) -> None:
    with pytest.raises(ValueError, match="resolution="):
        height_and_width(resolution)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("resolution", "near"), [(9, (8, 16)), (2, (8, 16)), ([48, 60], ([48, 56], [48, 64])), ([9, 15], (8, 16))]
)
def test_sizes_that_can_be_halved(resolution: int | list[int], near: tuple[object, object]) -> None:
    assert multiples_near(resolution, 8) == near
