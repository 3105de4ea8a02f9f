"""The laws of training times against their papers, in one process and in two."""

import math
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
import torch
import torch.distributed as dist
from scipy.stats import chisquare, kstest
from torch import Tensor, nn

from diffusion_lit.density import (
    ImportanceDensity,
    LogitNormalDensity,
    LognormalDensity,
    StratifiedDensity,
    UniformDensity,
)
from diffusion_lit.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule, VPSchedule
from tests.analytic import build, members

DENSITIES = members("density")
FLOW = FlowSchedule()
CHANCE = 1e-4
"""Draws that a test of a law would call this unlikely or worse fail it; each is seeded."""


def images(num: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(num, 1, 1, 1, dtype=dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def warm(num_bins: int, losses: list[float], history_size: int = 2) -> ImportanceDensity:
    """A density that has seen the loss `losses[k]` in its part k."""
    density = ImportanceDensity(num_bins, history_size)
    for _ in range(history_size):
        density.record((torch.arange(num_bins) + 0.5) / num_bins, torch.tensor(losses))
    return density


def check_law(counts: Tensor, expected: Tensor) -> None:
    """Pearson's chi-squared test of the counts."""
    assert chisquare(counts.numpy(), (expected / expected.sum() * counts.sum()).numpy()).pvalue > CHANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", members("schedule"))
@pytest.mark.parametrize("name", DENSITIES)
def test_times_are_in_range_and_come_from_the_generator(name: str, schedule: str, dtype: torch.dtype) -> None:
    density, process = build("density", name), build("schedule", schedule)
    before = torch.get_rng_state()
    first, same, other = (density(images(500, dtype), process, seeded(seed)) for seed in (1, 1, 2))
    assert first.shape == (500, 1, 1, 1)
    assert first.dtype == dtype
    assert ((first > 0) & (first <= 1)).all()
    assert torch.equal(first, same)
    assert (first != other).float().mean() > 0.9
    assert torch.equal(torch.get_rng_state(), before)
    snapped = process.snap(first)
    assert ((snapped >= process.t_min) & (snapped <= 1)).all()


@pytest.mark.parametrize("name", DENSITIES)
def test_times_are_drawn_where_the_images_are(name: str) -> None:
    t = build("density", name).to("meta").eval()(images(5).to("meta"), FLOW)
    assert t.shape == (5, 1, 1, 1) and t.is_meta and t.dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in DENSITIES if name != "importance"])
def test_only_importance_corrects(name: str) -> None:
    density, t = build("density", name), torch.tensor([0.1, 0.9])
    density.record(t, t)
    assert density.correction(t) == 1
    assert not density.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_timesteps", [7, 1000])
def test_uniform_times_snap_to_uniform_steps(num_timesteps: int, dtype: torch.dtype) -> None:
    schedule, draws = CosineSchedule(num_timesteps), 200 * num_timesteps
    t = UniformDensity()(images(draws, dtype), schedule, seeded(11))
    snapped = schedule.snap(t)
    counts = torch.bincount(schedule.index(snapped).flatten(), minlength=num_timesteps + 1)
    assert len(counts) == num_timesteps + 1
    assert counts[0] == 0
    check_law(counts[1:], torch.ones(num_timesteps, dtype=torch.float64))
    assert ((snapped - t) * num_timesteps < 1 + 1e-3).all()
    assert ((snapped - t) * num_timesteps > -1e-3).all()


@pytest.mark.parametrize("num", [1, 2, 7, 256])
def test_stratified_times_lie_one_in_each_part(num: int) -> None:
    for seed in range(50):
        t = StratifiedDensity()(images(num), FLOW, seeded(seed)).flatten()
        assert torch.ceil(t * num).long().sort().values.tolist() == list(range(1, num + 1))
        torch.testing.assert_close(t.sort().values.diff(), torch.full((num - 1,), 1 / num, dtype=torch.float64))


@pytest.mark.parametrize("training", [True, False])
def test_stratified_times_follow_from_one_draw(training: bool) -> None:
    t = StratifiedDensity().train(training)(images(5), FLOW, seeded(3)).flatten()
    u = torch.rand((), generator=seeded(3), dtype=torch.float64)
    torch.testing.assert_close((1 - t) % 1, (u + torch.arange(5, dtype=torch.float64) / 5) % 1)


def test_a_step_of_several_batches_is_stratified_as_one_and_recorded_as_one() -> None:
    """Gradients that are accumulated are those of one large batch, whose image i is in batch i mod 3."""
    whole, parts = StratifiedDensity(), StratifiedDensity()
    expected = whole(images(12), FLOW, seeded(7)).flatten()
    losses, recorded, alike = torch.rand(12, generator=seeded(1)), ImportanceDensity(4, 3), ImportanceDensity(4, 3)
    for batch in range(3):
        parts.place = recorded.place = (batch, 3)
        t = parts(images(4), FLOW, seeded(7 + batch)).flatten()
        torch.testing.assert_close(t, expected[batch::3])
        assert not recorded.counts.any(), "no time of a step depends on the step's losses"
        recorded.record(t, losses[4 * batch : 4 * batch + 4])
    alike.record(torch.cat([expected[batch::3] for batch in range(3)]), losses)
    assert torch.equal(recorded.history, alike.history) and recorded.counts.sum() == 12


def test_each_stratified_time_is_uniform() -> None:
    density, generator = StratifiedDensity(), seeded(5)
    times = torch.stack([density(images(6), FLOW, generator).flatten() for _ in range(3_000)])
    for image in range(6):
        assert kstest(times[:, image].numpy(), "uniform").pvalue > CHANCE
        check_law(torch.histc(times[:, image], 30, 0, 1), torch.ones(30, dtype=torch.float64))


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.4, 0.7)])
@pytest.mark.parametrize("name", ["edm", "vp", "flow", "cosine_continuous", "linear"])
def test_lognormal_is_of_the_noise_on_every_schedule(name: str, mean: float, std: float) -> None:
    """Kolmogorov and Smirnov's test of log(sigma / alpha), all within 4 standard deviations of the schedules' ends."""
    schedule = build("schedule", name)
    t = LognormalDensity(mean, std)(images(20_000), schedule, seeded(7))
    log_noise = (schedule.sigma(t) / schedule.alpha(t)).log().flatten()
    assert kstest(log_noise.numpy(), "norm", (mean, std)).pvalue > CHANCE


def test_lognormal_noise_beyond_the_last_is_the_last() -> None:
    t = LognormalDensity(9.0, 1.0)(images(1_000), VPSchedule(), seeded(7))
    assert (t == 1).all()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 1.7)])
@pytest.mark.parametrize("name", ["edm", "vp", "flow"])
def test_logit_normal_is_of_time_on_every_schedule(name: str, mean: float, std: float) -> None:
    t = LogitNormalDensity(mean, std)(images(20_000), build("schedule", name), seeded(8)).flatten()
    assert kstest((t / (1 - t)).log().numpy(), "norm", (mean, std)).pvalue > CHANCE


class SecondMoments:
    """Nichol & Dhariwal 2021, eq. 18, with the history of each step as a list."""

    def __init__(self, num: int, size: int, share: float) -> None:
        self.histories: list[list[float]] = [[] for _ in range(num)]
        self.size, self.share = size, share

    def record(self, steps: list[int], losses: list[float]) -> None:
        for step, loss in zip(steps, losses, strict=True):
            self.histories[step] = [*self.histories[step], loss][-self.size :]

    def probabilities(self) -> list[float]:
        num = len(self.histories)
        if any(len(history) < self.size for history in self.histories):
            return [1 / num] * num
        roots = [math.sqrt(sum(loss**2 for loss in history) / self.size) for history in self.histories]
        return [root / sum(roots) * (1 - self.share) + self.share / num for root in roots]


@pytest.mark.parametrize(("num", "size", "share"), [(5, 3, 0.001), (20, 10, 0.001), (12, 1, 0.3)])
def test_importance_is_the_published_resampler(num: int, size: int, share: float) -> None:
    """To 1e-6, the rounding of float32, through batches with one step many times over, or few steps at all."""
    random, density, literal = Random(3), ImportanceDensity(num, size, share), SecondMoments(num, size, share)
    warmed = 0
    for _ in range(60):
        batch = random.choice([1, 4, 40])
        steps = [random.randrange(random.choice([2, num])) for _ in range(batch)]
        losses = [random.lognormvariate(0, 1) * (1 + step) for step in steps]
        density.record((torch.tensor(steps) + 1) / num, torch.tensor(losses))
        literal.record(steps, losses)
        assert density.probabilities().tolist() == pytest.approx(literal.probabilities(), abs=1e-6)
        warmed += density.probabilities().unique().numel() > 1
    assert 5 < warmed < 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_bins", [1, 3, 100, 1000, 4000])
def test_each_step_of_a_chain_has_its_own_part(num_bins: int, dtype: torch.dtype) -> None:
    """The paper's own has one part for each of its 4000 steps."""
    density, steps = ImportanceDensity(num_bins, 1), torch.arange(1, num_bins + 1)
    t = (steps.double() / num_bins).to(dtype)
    assert torch.equal(density.part(t), steps - 1)
    density.record(t, steps.float())
    assert torch.equal(density.history.flatten(), steps.float())


def test_the_step_that_a_time_snaps_to_is_in_the_part_it_was_drawn_in() -> None:
    density, schedule = warm(50, [1.0 + k % 7 for k in range(50)]), LinearSchedule()
    t = density(images(50_000, torch.float32), schedule, seeded(2))
    inside = (t.double() * 50) % 1 > 1e-3  # not at a part's very edge, which rounding may cross
    assert torch.equal(density.part(t)[inside], density.part(schedule.snap(t))[inside])
    assert inside.float().mean() > 0.99


def test_importance_is_uniform_until_every_part_has_its_losses() -> None:
    density = ImportanceDensity(4, 2)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9])
    for known in (t, t[:3]):
        density.record(known, 10 * known)
        assert density.probabilities().tolist() == [0.25] * 4
        assert density.correction(t).tolist() == [1] * 4
    density.record(t[3:], 10 * t[3:])
    assert density.probabilities().tolist() == pytest.approx(
        [0.999 * part / 1.9 + 0.00025 for part in (0.1, 0.3, 0.6, 0.9)], rel=1e-5
    )


def test_importance_draws_each_part_as_often_as_it_says_and_evenly_within() -> None:
    density = warm(8, [0.1, 3.0, 1.0, 0.2, 7.0, 0.5, 2.0, 1.0])
    t = density(images(40_000), FLOW, seeded(9)).flatten()
    check_law(torch.bincount(density.part(t), minlength=8), density.probabilities().double())
    assert kstest((t * 8 % 1).numpy(), "uniform").pvalue > CHANCE


def test_corrected_losses_have_the_mean_of_uniform_times() -> None:
    """Within 5 standard errors, and with less variance, which is what importance sampling is for."""
    density = warm(20, [math.exp(3 * (k + 0.5) / 20) for k in range(20)])
    t = density(images(100_000), FLOW, seeded(4)).flatten()
    corrected, uniform = torch.exp(3 * t) * density.correction(t), torch.exp(3 * torch.rand(100_000))
    expected = math.expm1(3) / 3
    assert abs(float(corrected.mean()) - expected) < 5 * float(corrected.std()) / math.sqrt(100_000)
    assert float(corrected.std()) < 0.2 * float(uniform.std())


def test_importance_is_uniform_and_does_not_learn_outside_training() -> None:
    density = warm(4, [1.0, 2.0, 3.0, 4.0])
    before = {name: value.clone() for name, value in density.state_dict().items()}
    density.eval()
    assert density.probabilities().tolist() == [0.25] * 4
    assert density.correction(torch.tensor([0.1, 0.9])).tolist() == [1, 1]
    density.record(torch.tensor([0.1, 0.9]), torch.tensor([50.0, 60.0]))
    assert all(torch.equal(value, before[name]) for name, value in density.state_dict().items())
    density.train()
    assert density.probabilities().tolist() == pytest.approx([0.999 * k / 10 + 0.00025 for k in (1, 2, 3, 4)])


def test_importance_resumes_from_a_checkpoint() -> None:
    """The history's place too: what is recorded next drops the same, oldest losses."""
    density, restored = ImportanceDensity(3, 4), ImportanceDensity(3, 4)
    random = Random(1)

    def batch() -> tuple[Tensor, Tensor]:
        return torch.tensor([random.random() for _ in range(9)]), torch.tensor([random.random() for _ in range(9)])

    for _ in range(7):
        density.record(*batch())
    restored.load_state_dict(density.state_dict())
    for _ in range(3):
        next_batch = batch()
        for each in (density, restored):
            each.record(*next_batch)
        assert torch.equal(density.history, restored.history)
        assert torch.equal(density.probabilities(), restored.probabilities())
    assert density.probabilities().unique().numel() == 3


def test_of_more_losses_than_fit_the_last_are_kept() -> None:
    density, t = ImportanceDensity(2, 3), torch.tensor([0.2, 0.9, 0.2, 0.2, 0.9, 0.2, 0.9, 0.2])
    density.record(t, torch.arange(8.0))
    assert density.history.sort().values.tolist() == [[3, 5, 7], [1, 4, 6]]
    density.record(t[:2], torch.tensor([8.0, 9.0]))
    assert density.history.sort().values.tolist() == [[5, 7, 8], [4, 6, 9]]
    assert density.counts.tolist() == [6, 4]


def test_parts_that_do_not_divide_the_steps_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"num_bins=300 does not divide the schedule's 1000 steps.*num_bins=100 or 1000"
    ):
        ImportanceDensity(300).check(LinearSchedule())
    ImportanceDensity(250).check(LinearSchedule())
    ImportanceDensity(300).check(FLOW)


@pytest.mark.parametrize("schedule", [FLOW, VPSchedule()])
def test_parts_of_time_that_no_loss_reaches_are_refused(schedule: Schedule) -> None:
    """With them it would stay uniform for ever; with as many as there can be it does not."""
    with pytest.raises(ValueError, match=r"num_bins=1001 has parts .* below t_min = 0\.001.*num_bins=1000 or fewer"):
        ImportanceDensity(1001).check(schedule)
    density = ImportanceDensity(1000, history_size=1)
    density.check(schedule)
    t = schedule.snap((torch.arange(1000) + 0.5) / 1000)
    density.record(t, 1 + t)
    assert density.probabilities().unique().numel() > 1


@pytest.mark.parametrize(
    ("density", "settings", "message"),
    [
        (ImportanceDensity, {"num_bins": 0}, "num_bins and history_size of at least 1, got 0 and 10"),
        (ImportanceDensity, {"history_size": 0}, "got 100 and 0"),
        (ImportanceDensity, {"uniform_share": 0.0}, r"uniform_share must lie in \(0, 1\], got 0.0"),
        (ImportanceDensity, {"uniform_share": 1.1}, "got 1.1"),
        (LognormalDensity, {"std": 0.0}, "density.std must be positive, got 0.0"),
        (LogitNormalDensity, {"std": -1.0}, "density.std must be positive, got -1.0"),
    ],
)
def test_settings_out_of_range_are_named(density: type[nn.Module], settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density(**settings)


BATCH = 5


def losses(rank: int) -> tuple[Tensor, Tensor]:
    """What one of two ranks has to record: times in four parts, and losses."""
    return torch.tensor([0.1, 0.3, 0.6, 0.9, 0.9]), torch.arange(5.0) + 10 * rank + 1


def work(rank: int, folder: str) -> None:
    """One of two ranks: its stratified times in training and in validation, and a shared history."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    stratified, importance, generator = StratifiedDensity(), ImportanceDensity(4, 3), seeded(rank)
    training = torch.stack([stratified(images(BATCH), FLOW, generator).flatten() for _ in range(20)])
    stratified.eval()
    validation = torch.stack([stratified(images(BATCH), FLOW, generator).flatten() for _ in range(20 + rank)])
    for _ in range(2):
        importance.record(*losses(rank))
    results = {"training": training, "validation": validation, "importance": importance.state_dict()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_ranks_are_stratified_together(ranks: list[dict[str, Tensor]]) -> None:
    """They have the times that a single process with the first one's generator gives a batch of both."""
    alone, generator = StratifiedDensity(), seeded(0)
    for batch in torch.stack([rank["training"] for rank in ranks], 2).flatten(1):
        assert torch.ceil(batch * 2 * BATCH).long().sort().values.tolist() == list(range(1, 2 * BATCH + 1))
        torch.testing.assert_close(batch, alone(images(2 * BATCH), FLOW, generator).flatten())


def test_in_validation_each_rank_is_stratified_by_itself(ranks: list[dict[str, Tensor]]) -> None:
    """Even where one has more batches than the other."""
    for num, rank in zip((20, 21), ranks, strict=True):
        assert len(rank["validation"]) == num
        for batch in rank["validation"]:
            assert torch.ceil(batch * BATCH).long().sort().values.tolist() == list(range(1, BATCH + 1))


def test_two_ranks_share_the_history_of_losses(ranks: list[dict[str, Tensor]]) -> None:
    """It is the one that a single process would have of both batches, one after the other."""
    alone = ImportanceDensity(4, 3)
    batches = [torch.cat(parts) for parts in zip(losses(0), losses(1), strict=True)]
    for _ in range(2):
        alone.record(*batches)
    for rank in ranks:
        assert torch.equal(rank["importance"]["history"], alone.history)
        assert torch.equal(rank["importance"]["counts"], alone.counts)
    assert alone.counts.tolist() == [4, 4, 4, 8]
