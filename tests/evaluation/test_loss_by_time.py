"""The means of a loss over quarters of time, in whatever batches, on whatever ranks, in whatever precision."""

import pytest
import torch

from diffusion_lit.evaluation import LossByTime

TIMES = torch.tensor([0.001, 0.25, 0.2500001, 0.5, 0.3, 0.75, 0.9, 1.0])
LOSSES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
MEANS = {"loss": 255 / 8, "loss_q1": 3 / 2, "loss_q2": 28 / 3, "loss_q3": 32.0, "loss_q4": 192 / 2}


def values(metric: LossByTime) -> dict[str, float]:
    return {name: float(mean) for name, mean in metric.compute().items()}


def test_loss_by_time_is_the_mean_of_each_quarter() -> None:
    """The quarters (0, 1/4], (1/4, 1/2], ... hold 2, 3, 1 and 2 of the times."""
    metric = LossByTime()
    metric.update(LOSSES, TIMES)
    assert values(metric) == pytest.approx(MEANS, rel=1e-6)


def test_loss_by_time_counts_images_not_batches() -> None:
    metric = LossByTime()
    for part in (slice(0, 1), slice(1, 6), slice(6, 8)):
        metric.update(LOSSES[part], TIMES[part])
    assert values(metric) == pytest.approx(MEANS, rel=1e-6)
    metric.reset()
    metric.update(LOSSES[:1], TIMES[:1])
    assert values(metric) == {"loss": 1.0, "loss_q1": 1.0}


def test_loss_by_time_adds_up_over_ranks() -> None:
    ranks = [LossByTime(), LossByTime()]
    ranks[0].update(LOSSES[:3], TIMES[:3])
    ranks[1].update(LOSSES[3:], TIMES[3:])
    for state in ("total", "count"):  # what torchmetrics does with the states that it has gathered
        reduce = ranks[0]._reductions[state]
        assert callable(reduce)
        setattr(ranks[0], state, reduce(torch.stack([getattr(rank, state) for rank in ranks])))
    assert values(ranks[0]) == pytest.approx(MEANS, rel=1e-6)


@pytest.mark.parametrize("num_timesteps", [4, 10, 1000])
def test_loss_by_time_cuts_a_discrete_schedule_in_four(num_timesteps: int) -> None:
    """Step k of T, t = k / T, is in the quarter ceil(4 k / T), in float32 as in whole numbers."""
    for k in range(1, num_timesteps + 1):
        metric = LossByTime()
        metric.update(torch.ones(1), torch.tensor([k / num_timesteps]))
        assert set(values(metric)) == {"loss", f"loss_q{-(-4 * k // num_timesteps)}"}


def test_loss_by_time_leaves_out_empty_quarters() -> None:
    metric = LossByTime()
    metric.update(LOSSES[[5, 7]], TIMES[[5, 7]])
    assert values(metric) == {"loss": 80.0, "loss_q3": 32.0, "loss_q4": 128.0}


def test_loss_by_time_takes_half_precision() -> None:
    """Sums are kept in float32: 4096 ones in bfloat16 would stop at 256."""
    metric = LossByTime()
    for _ in range(4):
        metric.update(torch.ones(1024, dtype=torch.bfloat16), torch.full((1024,), 0.6))
    assert values(metric) == {"loss": 1.0, "loss_q3": 1.0}
    assert float(metric.total.sum()) == 4096


def test_loss_by_time_counts_on_in_a_bf16_module() -> None:
    metric = LossByTime()
    torch.nn.ModuleDict({"metric": metric}).to(torch.bfloat16)
    for _ in range(100):
        metric.update(torch.full((10,), 0.3), torch.full((10,), 0.9))
    assert float(metric.count[3]) == 1000  # bf16 stops at 256
    assert float(metric.compute()["loss_q4"]) == pytest.approx(0.3, rel=1e-4)
