"""Sums over training steps, and the time these take."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lit.callback.throughput import Throughput, flops_of, peak_memory
from diffusion_lit.condition import Condition
from diffusion_lit.logger import training_figures
from diffusion_lit.logger.training_figures import TrainingFigures
from diffusion_lit.loss import LossTerms
from diffusion_lit.model import SongUNet, UNet
from diffusion_lit.step_timer import StepTimer
from tests.analytic import build

CPU = torch.device("cpu")
SCHEDULE = build("schedule", "flow")
TIMES = SCHEDULE.time(torch.tensor([8.0, 1.0, -1.0, -1.0])).float()


def step(figures: TrainingFigures, losses: list[float], norm: float) -> None:
    loss = torch.tensor(losses)
    figures.add_losses(LossTerms(loss, TIMES, {"mse": 2 * loss}))
    figures.add_gradient(torch.tensor(norm), 1.0)


def test_figures_are_means_over_the_steps_since_the_last_point() -> None:
    figures = TrainingFigures(SCHEDULE)
    step(figures, [1, 2, 3, 4], 0.5)
    step(figures, [3, 4, 5, 6], 2.5)
    step(figures, [5, 6, 7, 8], torch.nan)
    assert figures.read(CPU) == pytest.approx(
        {
            **{"loss": 4.5, "loss_least_noise": 3, "loss_less_noise": 4, "loss_more_noise": 5.5, "mse": 9},
            **{"grad_norm": 1.5, "clipped": 0.5, "not_finite": 1},  # of finite gradients; and the others
        }
    )
    assert figures.read(CPU) == {}
    step(figures, [1, 1, 1, 1], torch.inf)
    assert figures.read(CPU).keys().isdisjoint({"grad_norm", "clipped"})


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 1), (1, 2)])
def test_sums_survive_a_checkpoint(before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any number of ranks in another; each rank's own where there are as many."""

    def together(everyone: list[TrainingFigures], call: str) -> list[Any]:
        """The answers of all ranks, of which each is given what all have."""
        rows = torch.cat([torch.cat([v.reshape(-1) for v in f.sums.values()])[None] for f in everyone])
        monkeypatch.setattr(training_figures, "gathered", lambda own: rows)
        answers = []
        for rank, own in enumerate(everyone):
            monkeypatch.setattr(training_figures, "rank_and_size", lambda rank=rank: (rank, len(everyone)))
            answers.append(getattr(own, call)(CPU))
        return answers

    everyone = [TrainingFigures(SCHEDULE) for _ in range(before)]
    for rank, figures in enumerate(everyone):
        step(figures, [1 + rank] * 4, 3.0)
    [state, *others] = together(everyone, "state_dict")
    assert all(torch.equal(state[name], other[name]) for other in others for name in state)
    expected = together(everyone, "read")[0]
    resumed = [TrainingFigures(SCHEDULE) for _ in range(after)]
    for rank, figures in enumerate(resumed):
        monkeypatch.setattr(training_figures, "rank_and_size", lambda rank=rank: (rank, after))
        figures.load_state_dict(state)
    assert together(resumed, "read")[0] | {"not_finite": 0} == pytest.approx(expected | {"not_finite": 0})


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waiting_is_a_share_of_steps_and_what_is_between_steps_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    timer, speed = StepTimer(), Throughput()
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(timer=timer)))
    module: Any = SimpleNamespace(device=CPU, accumulation=SimpleNamespace(ends_step=True))
    monkeypatch.setattr("diffusion_lit.callback.throughput.DiffusionModule", SimpleNamespace)
    speed.on_train_start(trainer, module)
    for compiling in (100.0, 0.0, 0.0):
        timer.begin_step()
        timer.begin_fetch()
        clock.now += 1
        timer.end_fetch()
        clock.now += 3 + compiling
        speed.on_train_batch_end(trainer, module, None, range(8), 0)
        timer.end_step()
        clock.now += 50  # a validation
    speed.flops, speed.peak = 10, 160.0
    figures = speed.training_figures(trainer, module)
    assert figures.pop("memory/peak_gib") > 0
    assert figures == {
        "throughput/images_per_s": 2.0,
        "throughput/step_seconds": 4.0,
        "throughput/data_wait": 0.25,
        "throughput/mfu": 10 * 2 / 160,
    }
    assert set(speed.training_figures(trainer, module)) == {"memory/peak_gib"}  # no step since


def test_the_clock_starts_with_a_step_and_not_within_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three steps on four batches of five images, of which the first is left out, takes four seconds."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("diffusion_lit.callback.throughput.DiffusionModule", SimpleNamespace)
    timer, speed = StepTimer(), Throughput()
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(timer=timer)))
    module: Any = SimpleNamespace(device=CPU, accumulation=SimpleNamespace(ends_step=False))
    speed.on_train_start(trainer, module)
    for batch in range(12):
        module.accumulation.ends_step = batch % 4 == 3
        timer.begin_step()
        clock.now += 1
        speed.on_train_batch_end(trainer, module, None, range(5), batch)
        timer.end_step()
    figures = speed.training_figures(trainer, module)
    assert (figures["throughput/images_per_s"], figures["throughput/step_seconds"]) == (5.0, 4.0)


def test_speed_is_of_all_ranks_and_of_optimizer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks accumulate two batches a step; the slower one says how long it takes."""
    resets: list[int] = []
    timer: Any = SimpleNamespace(seconds=0.8, waited=0.2, reset=lambda: resets.append(1))
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(timer=timer)))
    module: Any = SimpleNamespace(device=CPU, accumulation=SimpleNamespace(ends_step=False))
    other = torch.tensor([[1e6, 1.0, 0.5]])
    monkeypatch.setattr("diffusion_lit.callback.throughput.DiffusionModule", SimpleNamespace)
    monkeypatch.setattr("diffusion_lit.callback.throughput.gathered", lambda own: torch.cat([own, other]))
    speed = Throughput()
    for run in range(2):
        speed.on_train_start(trainer, module)
        for batch in range(1 + 2 * 3):  # the first is of warming up
            module.accumulation.ends_step = batch % 2 == 0
            speed.on_train_batch_end(trainer, module, None, range(5), batch)
        assert len(resets) == 1 + 2 * run
        expected = {
            "memory/peak_gib": 1e6,
            "throughput/images_per_s": 2 * 6 * 5 / 1,
            "throughput/step_seconds": pytest.approx(1 / 3),
            "throughput/data_wait": pytest.approx((2 / 8 + 5 / 10) / 2),
        }
        if run:
            expected["throughput/mfu"] = pytest.approx(10 * (2 * 6 * 5 / 1) / (2 * 100))
        assert speed.training_figures(trainer, module) == expected
        speed.flops, speed.peak = 10, 100.0  # only now is the device's peak known
    other[0, 1:] = 0  # a rank that has no seconds to divide by
    speed.on_train_batch_end(trainer, module, None, range(5), 0)
    assert speed.training_figures(trainer, module) == {"memory/peak_gib": 1e6}
    trainer.fit_loop.epoch_loop = None  # another trainer's loop, without a timer
    speed.on_train_batch_end(trainer, module, None, range(5), 0)
    assert speed.training_figures(trainer, module) == {"memory/peak_gib": 1e6}


def test_memory_is_what_the_system_says_in_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """In KiB on Linux, in bytes on macOS and of a GPU."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 * 2**20))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    found = {}
    for platform in ("linux", "darwin"):
        monkeypatch.setattr("sys.platform", platform)
        found[platform] = peak_memory(CPU)
    assert found == {"linux": 3, "darwin": 3 / 1024}
    assert peak_memory(torch.device("cuda")) == 3


def test_flops_are_counted_where_they_are_a_share_of_something(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = SimpleNamespace(denoiser=SimpleNamespace(network="the network"))
    trainer: Any = SimpleNamespace(precision_plugin=Precision(), strategy=SimpleNamespace(root_device=CPU))
    monkeypatch.setattr("diffusion_lit.callback.throughput.DiffusionModule", SimpleNamespace)
    monkeypatch.setattr("diffusion_lit.callback.throughput.flops_of", {"the network": 123}.__getitem__)
    for known, stage, flops in ((10**12, "fit", 123), (10**12, "validate", 0), (None, "fit", 0)):
        asked: list[Any] = []

        def peak_of(*device: Any, known: int | None = known, asked: list[Any] = asked) -> int | None:
            asked.extend(device)
            return known

        monkeypatch.setattr("diffusion_lit.callback.throughput.get_available_flops", peak_of)
        speed = Throughput()
        speed.setup(trainer, module, stage)
        assert asked == [CPU, torch.float32]
        assert (speed.peak, speed.flops) == (known or 0, flops)


@pytest.mark.parametrize(
    ("network_class", "options"),
    [
        (UNet, {"channel_multipliers": [1, 2], "null_class": False}),  # which requires labels
        (SongUNet, {"channel_multipliers": [1], "num_res_blocks": 1, "augmentation_dim": 9}),
    ],
)
def test_flops_are_those_of_training_on_an_image(network_class: Any, options: dict[str, Any]) -> None:
    settings = {"resolution": 8, "image_channels": 1, "num_classes": 3, "channels": 8, "num_groups": 4}
    network = network_class(**settings, **options)
    augment = torch.zeros(1, network.augmentation_dim) if network.augmentation_dim else None
    condition = Condition(torch.zeros(1, dtype=torch.long), augment)
    before = [p.clone() for p in network.parameters()]
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # a fused kernel on the CPU is not counted
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1), condition).sum().backward()
    assert flops_of(network) == counter.get_total_flops() > 1e5
    assert all(isinstance(p, Tensor) and torch.equal(p, w) for p, w in zip(network.parameters(), before, strict=True))
