"""The means of a loss by noise level, in whatever batches, on whatever ranks, in whatever precision."""

import pytest
import torch

from diffusion_lit.evaluation import LossByNoise
from diffusion_lit.noise_level import BOUNDARIES, LEVELS, NoiseLevels
from tests.analytic import build
from tests.test_config import members

LOG_SNR = torch.tensor([8.0, 4.1, 3.9, 0.1, 2.0, -0.1, -5.0, -9.0], dtype=torch.float64)
LOSSES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
MEANS = {"loss": 255 / 8, **dict(zip((f"loss_{name}" for name in LEVELS), (3 / 2, 28 / 3, 32.0, 192 / 2), strict=True))}
SCHEDULE = build("schedule", "cosine_continuous")
TIMES = SCHEDULE.time(LOG_SNR).float()


def values(metric: LossByNoise) -> dict[str, float]:
    return {name: float(mean) for name, mean in metric.compute().items()}


def test_loss_by_noise_counts_images_not_batches() -> None:
    metric = LossByNoise(SCHEDULE)
    for part in (slice(0, 1), slice(1, 6), slice(6, 8)):
        metric.update(LOSSES[part], TIMES[part])
    assert values(metric) == pytest.approx(MEANS, rel=1e-6)
    metric.reset()
    metric.update(LOSSES[:1], TIMES[:1])
    assert values(metric) == {"loss": 1.0, "loss_least_noise": 1.0}  # and no other level, which it says nothing of


def test_loss_by_noise_adds_up_over_ranks() -> None:
    ranks = [LossByNoise(SCHEDULE), LossByNoise(SCHEDULE)]
    ranks[0].update(LOSSES[:3], TIMES[:3])
    ranks[1].update(LOSSES[3:], TIMES[3:])
    reduce = ranks[0]._reductions["sums"]  # what torchmetrics does with the states that it has gathered
    assert callable(reduce)
    ranks[0].sums = reduce(torch.stack([rank.sums for rank in ranks]))
    assert values(ranks[0]) == pytest.approx(MEANS, rel=1e-6)


@pytest.mark.parametrize("name", members("schedule"))
def test_levels_are_log_snr_on_every_schedule(name: str) -> None:
    """Each training time is in the level that its log SNR says, and three levels at least have images."""
    schedule = build("schedule", name)
    t = schedule.snap(torch.linspace(1e-4, 1, 4001))
    log_snr = schedule.log_snr(t)
    expected = torch.stack([log_snr < boundary for boundary in BOUNDARIES]).sum(0)
    clear = torch.stack([(log_snr - boundary).abs() > 1e-3 for boundary in BOUNDARIES]).all(0)
    levels = NoiseLevels(schedule)
    found = torch.cat([levels.sums(t[i : i + 1], t[i : i + 1])[1:].argmax(1) for i in range(0, len(t), 20)])
    assert torch.equal(found[clear[::20]], expected[::20][clear[::20]])
    counts = levels.sums(t, t)[1]
    assert counts.sum() == len(t) and (counts > 0).sum() >= 3  # `sqrt` begins with some noise


def test_a_loss_that_is_not_a_number_spoils_its_level_alone() -> None:
    loss = torch.where(torch.arange(8) == 7, torch.nan, LOSSES)
    sums = NoiseLevels(SCHEDULE).sums(loss, TIMES)[0]
    assert sums[:3].tolist() == [3, 28, 32] and sums[3].isnan()


def test_loss_by_noise_counts_on_in_a_bf16_module() -> None:
    """Losses in half precision too: sums are kept in float32, and 4096 ones in bfloat16 would stop at 256."""
    metric = LossByNoise(SCHEDULE)
    torch.nn.ModuleDict({"metric": metric}).to(torch.bfloat16)
    for _ in range(4):
        metric.update(torch.ones(1024, dtype=torch.bfloat16), torch.full((1024,), 0.97))
    assert values(metric) == {"loss": 1.0, "loss_most_noise": 1.0} and float(metric.sums[1, 3]) == 4096
