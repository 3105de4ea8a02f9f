"""Pictures of schedules and of what a model does along time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.files import replacing
from diffusion_lit.picture.grid import image_grid
from diffusion_lit.picture.image import as_array, save_figure, to_uint8
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import Sampler
from diffusion_lit.schedule import Schedule

__all__ = ["Trajectory", "draw_schedules", "draw_strip", "example_image", "follow", "save_animation"]

ROWS = {"reverse": "reverse x_t", "estimates": "its x_0", "forward": "forward x_t"}
STYLES = [(f"C{i}", ("-", "--", ":", "-.")[i % 4]) for i in range(10)] * 4  # told apart also where they coincide


def draw_schedules(schedules: dict[str, Schedule], image: Tensor, path: Path, num_images: int = 9) -> None:
    """One figure: abar, log SNR and beta against time, and an image noised along it, a row for each schedule.

    Where alpha^2 + sigma^2 is not 1, abar is alpha^2 / (alpha^2 + sigma^2), and the image is scaled to fit.

    Args:
        schedules: by the name shown.
        image, num_images: in [-1, 1], [C, H, W], and how often it is drawn in a row.
    """
    from matplotlib.figure import Figure  # of the whole of matplotlib, what needs no display

    figure = Figure(figsize=(12, 3.6 + 1.25 * len(schedules)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.6, 1.25 * len(schedules)])
    curves, strips = parts
    axes = curves.subplots(1, 3)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for (name, schedule), (color, line) in zip(schedules.items(), STYLES, strict=False):
        log_snr = schedule.log_snr(t)
        abar = log_snr.sigmoid()
        beta = 1 - abar[1:] / abar[:-1]
        style = {"color": color, "linestyle": line, "label": name}
        axes[0].plot(t, abar, **style)
        axes[1].plot(t[1:], log_snr[1:], **style)
        axes[2].semilogy(t[1:], beta, **style)
    for axis, title in zip(axes, ("abar: the signal's share", "log SNR", "beta, of 1000 steps"), strict=True):
        axis.set(title=title, xlabel="t", xlim=(0, 1))
        axis.grid(alpha=0.3)
    axes[1].set_ylim(-20, 20)
    axes[2].set_ylim(1e-5, 1.2)
    curves.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)

    eps = ImageNoise(0, [0], tuple(image.shape))()  # type: ignore[arg-type]
    times = np.linspace(0, 1, num_images)
    noisy = [[to_uint8(noised(s, image[None], eps, float(t))[0]) for t in times] for s in schedules.values()]
    draw_rows(strips, list(zip(schedules, noisy, strict=True)), [f"t = {t:.3g}" for t in times])
    save_figure(figure, path)


def draw_rows(figure: Any, rows: Sequence[tuple[str, Sequence[Tensor]]], titles: Sequence[str]) -> None:
    """Rows of images uint8 [C, H, W], each with its name at the left, under the titles of their columns.

    They are drawn as one picture: matplotlib needs as long for the axes of a single image as for all of this one.
    """
    images = torch.stack([image for _, own in rows for image in own])
    picture, axis = image_grid(images, len(titles)), figure.subplots()
    axis.imshow(as_array(picture), cmap="gray", vmin=0, vmax=255)
    columns, names = centres(picture.shape[2], len(titles)), centres(picture.shape[1], len(rows))
    axis.set_xticks(columns, titles, fontsize=9)
    axis.set_yticks(names, [name for name, _ in rows], fontsize=9, rotation=90, va="center")
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)


def centres(size: int, count: int) -> np.ndarray:
    """The pixels amid `count` equal parts of `size` pixels."""
    return (np.arange(count) + 0.5) * size / count - 0.5


def noised(schedule: Schedule, x_0: Tensor, eps: Tensor, time: float) -> Tensor:
    """x_t at one time, on the variance-preserving scale."""
    t = torch.full((len(x_0), 1, 1, 1), time, dtype=x_0.dtype, device=x_0.device)
    return schedule.add_noise(x_0, eps, t) / schedule.scale(t)


def example_image(size: int = 96) -> Tensor:
    """A photograph that comes with scikit-learn, in [-1, 1], [3, size, size]."""
    from sklearn.datasets import load_sample_image

    picture = Image.fromarray(load_sample_image("flower.jpg")).crop((130, 20, 530, 420))
    return torch.from_numpy(np.array(picture.resize((size, size)))).permute(2, 0, 1) / 127.5 - 1


@dataclass(frozen=True)
class Trajectory:
    """What a sampler passes through, and the way of its results back to noise; on the variance-preserving scale."""

    times: Tensor
    """From 1 to 0, [n]."""
    decode: Callable[[Tensor], Tensor]
    """The frames below, [B, C, H, W], to images, uint8."""
    reverse: Tensor
    """x_t, [n, B, C, H, W]."""
    estimates: Tensor
    """The model's x_0 at each x_t, likewise; at the end the image itself."""
    forward: Tensor
    """The images that were drawn, noised to each time by one noise, likewise."""

    def shown(self, columns: int = 9) -> np.ndarray:
        """The numbers of at most `columns` frames, evenly spread over the steps."""
        return np.unique(np.linspace(0, len(self.times) - 1, columns).round().astype(int))


@torch.no_grad()
def follow(
    denoiser: BaseDenoiser,
    sampler: Sampler,
    indices: Sequence[int],
    condition: Condition,
    seed: int,
    device: torch.device | str = "cpu",
) -> Trajectory:
    """Draw images and keep every step. Arguments as `generate`."""
    schedule, shape = denoiser.schedule, denoiser.image_shape
    one = torch.ones(len(indices), 1, 1, 1, device=device)
    visited = [(one, schedule.sigma(one) * ImageNoise(seed, indices, shape, device)())]
    sampler(denoiser, ImageNoise(seed, indices, shape, device), condition, lambda s, x_s: visited.append((s, x_s)))
    walk = sampler.walk(denoiser, condition)
    x_0, eps = visited[-1][1], ImageNoise(seed + 1, indices, shape, device)()
    reverse = [x / schedule.scale(t) for t, x in visited]
    estimates = [*(walk.predict(x, t).x_0 for t, x in visited[:-1]), x_0]
    times = torch.stack([t[0, 0, 0, 0] for t, _ in visited]).cpu()
    forward = [noised(schedule, x_0, eps, float(time)) for time in times]
    walks = (torch.stack(frames).cpu() for frames in (reverse, estimates, forward))
    return Trajectory(times, lambda x: denoiser.space.decode(x.to(device)).cpu(), *walks)


def draw_strip(trajectory: Trajectory, path: Path, columns: int = 9) -> None:
    """Three rows for each image: what the sampler passes through, the model's x_0 there, and the way back to noise.

    At most `columns` times are shown, evenly spread over the steps. `path` is that of the PNG.
    """
    from matplotlib.figure import Figure

    chosen = trajectory.shown(columns)
    frames = {name: getattr(trajectory, attribute)[chosen] for attribute, name in ROWS.items()}
    rows = [
        (name, [trajectory.decode(frame[i : i + 1])[0] for frame in walk])
        for i in range(trajectory.reverse.shape[1])
        for name, walk in frames.items()
    ]
    height, width = rows[0][1][0].shape[1:]
    side = 1.25 / math.sqrt(height * width)  # inches of a pixel
    figure = Figure(figsize=(side * width * len(chosen) + 0.6, side * height * len(rows) + 0.5), layout="constrained")
    draw_rows(figure, rows, [f"t = {time:.2f}" for time in trajectory.times[chosen]])
    save_figure(figure, path)


def save_animation(trajectory: Trajectory, path: Path, columns: int, seconds: float = 4.0) -> None:
    """The images from noise to data and, after a pause, back: a GIF or WebP, by the ending of `path`."""
    frames = [*trajectory.reverse, *([trajectory.reverse[-1]] * 5), *trajectory.forward.flip(0)]
    pictures = [Image.fromarray(as_array(image_grid(trajectory.decode(frame), columns))) for frame in frames]
    duration = max(20, int(1000 * seconds / len(pictures)))
    options: Any = {"save_all": True, "append_images": pictures[1:], "duration": duration, "loop": 0}
    with replacing(path) as file:
        pictures[0].save(file, path.suffix[1:], **options)
