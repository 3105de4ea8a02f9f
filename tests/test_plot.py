"""The plot command and the figures it draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lit.condition import UNCONDITIONAL
from diffusion_lit.figure import draw_strip, follow, noised, save_animation
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import DDIMSampler
from tests.analytic import GaussianDenoiser, build, members
from tests.launch import run_forked, train_in

ONE = torch.ones(1, 1, 1, 1)


class Picture(GaussianDenoiser):
    """A perfect model of small grey images."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.image_shape = (1, 6, 6)


@pytest.mark.parametrize("name", members("schedule"))
def test_a_trajectory_is_the_walk_of_the_sampler(name: str) -> None:
    """Every x_t, on the variance-preserving scale; its end is what the sampler draws."""
    model = Picture(build("schedule", name), 0.2, 0.4)
    sampler = DDIMSampler(6)
    trajectory = follow(model, sampler, [3, 5], UNCONDITIONAL, seed=2)
    drawn = sampler(model, ImageNoise(2, [3, 5], (1, 6, 6)))
    assert trajectory.times.tolist() == sampler.times(model.schedule).float().tolist()
    torch.testing.assert_close(trajectory.reverse[-1], drawn)
    torch.testing.assert_close(trajectory.estimates[-1], drawn)
    start = model.schedule.sigma(ONE) / torch.hypot(model.schedule.alpha(ONE), model.schedule.sigma(ONE))
    torch.testing.assert_close(trajectory.reverse[0], start * ImageNoise(2, [3, 5], (1, 6, 6))())
    torch.testing.assert_close(trajectory.forward[-1], drawn)
    times = trajectory.times.view(-1, 1, 1, 1, 1)[1:-1]
    x_t = torch.hypot(model.schedule.alpha(times), model.schedule.sigma(times)) * trajectory.reverse[1:-1]
    for t, x, estimate in zip(times, x_t, trajectory.estimates[1:-1], strict=True):
        torch.testing.assert_close(model(x, t).x_0, estimate, rtol=1e-4, atol=1e-4)


def test_the_way_forward_loses_the_image_as_the_schedule_says() -> None:
    schedule = build("schedule", "flow")
    x_0, eps = torch.randn(2, 1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    for time in (0.0, 0.25, 0.5, 1.0):
        expected = ((1 - time) * x_0 + time * eps) / np.hypot(1 - time, time)
        torch.testing.assert_close(noised(schedule, x_0, eps, time), expected)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animation_shows_every_step_there_and_back(ending: str, tmp_path: Path) -> None:
    trajectory = follow(Picture(build("schedule", "cosine"), 0.0, 0.5), DDIMSampler(8), [0, 1], UNCONDITIONAL, seed=0)
    save_animation(trajectory, tmp_path / f"walk.{ending}", columns=2)
    draw_strip(trajectory, tmp_path / "strip.png", columns=4)
    with Image.open(tmp_path / f"walk.{ending}") as animation, Image.open(tmp_path / "strip.png") as strip:
        assert animation.n_frames >= 2 * 8 - 1  # type: ignore[attr-defined]  # equal neighbours are merged
        first = np.asarray(animation.convert("L"), dtype=float)
        animation.seek(8)
        assert np.abs(np.asarray(animation.convert("L"), dtype=float) - first).mean() > 10
        assert strip.size[1] > strip.size[0]  # three rows for each of two images, four columns


def test_the_command_draws_schedules_and_refuses_mistakes(tmp_path: Path) -> None:
    mine = tmp_path / "my conf" / "schedule" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("defaults: [linear]\nnum_timesteps: 300\n")
    several = ("schedule=[flow,mine]", "schedule.num_timesteps=400")  # which a flow does not have
    done = run_forked("plot", "--config-dir=my conf", *several, "out=own", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "own" / "schedules.png") as two:
        assert two.size == (1320, 671), "curves of 3.6 inches and two rows of 1.25, of 110 dots each"
    assert run_forked("plot", "schedule=vp", "out=other", cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "other" / "schedules.png") as one:
        assert one.size == (1320, 533)
    for option, words in {
        "schedule=[linear,linear]": "each once",
        "animation=avi": "gif, webp or null",
        "ckpt=nowhere": "nowhere does not exist",
        "++sampler.num_steps=7": "sampler would be ignored",
        "schedule=[linear,cosin]": "cosin",
    }.items():
        done = run_forked("plot", option, cwd=tmp_path)
        assert done.returncode != 0 and words in done.stdout + done.stderr and "Traceback" not in done.stderr
    done = run_forked("plot", "ckpt=nowhere", "schedule=vp", cwd=tmp_path)
    assert done.returncode == 1 and "either schedule or ckpt" in done.stderr


def test_the_command_follows_a_checkpoint(tmp_path: Path) -> None:
    train_in(tmp_path / "run", "trainer.max_steps=1", "callback.fid=null", "callback.sample_grid=null")
    options = ("ckpt=run", "sampler=heun", "sampler.num_steps=4", "num_samples=2", "labels=[7]", "animation=webp")
    done = run_forked("plot", *options, "out=pictures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == ["schedules.png", "trajectory.png", "trajectory.webp"]
    assert all(str(Path("pictures") / name) in done.stdout for name in written)
