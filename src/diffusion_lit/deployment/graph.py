"""The denoiser as a graph that runs without this project: x_t, t and label in, x_0 and eps out.

The schedule and the parameterization are inside, so that nobody has to write them again; what a sampler needs beside,
the times with their alphas and sigmas, is in the metadata.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.schedule import spaced_times

__all__ = ["METADATA", "TOLERANCE", "GraphDenoiser", "check_equal", "first_line", "sampling_table", "traced"]

METADATA = "diffusion_lit.json"
"""The name under which a graph carries what is known of it."""
TOLERANCE = 1e-4
"""Of the largest difference to the model itself, in x_0 and, times sigma, in eps."""
MEANINGS = {
    "x_t": "noisy images, float32 [B, C, H, W]",
    "t": "time of each, float32 [B], 0 is data and 1 is noise",
    "label": "class of each, int64 [B]",
    "x_0": "the estimate of the clean images",
    "eps": "the noise that x_0 leaves in x_t: (x_t - alpha x_0) / sigma",
    "variance": "share of the way from the small to the large log variance of a reverse step",
}


class GraphDenoiser(nn.Module):
    """A denoiser with tensors alone in and out.

    Args:
        denoiser: in evaluation mode; it is frozen.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser.requires_grad_(False)
        self.inputs = ("x_t", "t") if denoiser.num_classes is None else ("x_t", "t", "label")
        self.outputs = ("x_0", "eps", "variance") if denoiser.learns_variance else ("x_0", "eps")

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        """Denoise `x_t` [B, C, H, W] from the times `t` [B], of the classes `label` [B]."""
        p = self.denoiser(x_t, t.view(-1, 1, 1, 1), Condition(label))
        return (p.x_0, p.eps) if p.variance is None else (p.x_0, p.eps, p.variance)

    def example(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs of a batch: noise, at times from 1 to the schedule's least, of the classes in turn.

        Where the network knows images without a class, the last of several is one.
        """
        generator = torch.Generator().manual_seed(seed)
        x_t = torch.randn(batch, *self.denoiser.image_shape, generator=generator)
        times = spaced_times(self.denoiser.schedule, min(batch, self.denoiser.schedule.num_timesteps or batch))
        t = times[:-1].float().repeat(batch)[:batch]
        if batch > 1:
            t[-1] = self.denoiser.schedule.t_min
        if self.denoiser.num_classes is None:
            return x_t, t
        label = torch.arange(batch) % self.denoiser.num_classes
        if batch > 1 and self.denoiser.null_class:
            label[-1] = NO_CLASS
        return x_t, t, label

    def described(self, num_steps: int) -> dict[str, Any]:
        """What whoever runs the graph needs to know, plain values."""
        space = self.denoiser.space
        inputs = {name: MEANINGS[name] for name in self.inputs}
        if "label" in inputs and self.denoiser.null_class:
            inputs["label"] += f"; {NO_CLASS} where there is none"
        return {
            "inputs": inputs,
            "outputs": {name: MEANINGS[name] for name in self.outputs},
            "image_shape": list(self.denoiser.image_shape),
            "num_classes": self.denoiser.num_classes,
            "images": "[-1, 1]" if space.bounded else f"latents: stored = x_0 / scale + shift, {space.config()}",
            "sampling": sampling_table(self.denoiser, num_steps),
        }


def sampling_table(denoiser: Denoiser, num_steps: int) -> dict[str, list[float]]:
    """The times of a walk from 1 to 0 in `num_steps` steps, the schedule's own spacing, and alpha and sigma there.

    Raises:
        ValueError: if the schedule cannot be walked so.
    """
    times = spaced_times(denoiser.schedule, num_steps)
    alpha, sigma, _ = denoiser.schedule.coefficients(times)
    return {"t": times.tolist(), "alpha": alpha.tolist(), "sigma": sigma.tolist()}


def traced(graph: GraphDenoiser) -> torch.export.ExportedProgram:
    """The graph as torch's own program, for any batch.

    Raises:
        ValueError: if a part of the model cannot be traced.
    """
    batch = torch.export.Dim("batch", min=1, max=2**16)
    try:
        with torch.no_grad():
            return torch.export.export(
                graph, graph.example(2), dynamic_shapes={name: {0: batch} for name in graph.inputs}, strict=False
            )
    except Exception as error:  # torch's, of whatever a model does
        raise ValueError(
            f"the model cannot be traced ({first_line(error)}): format=safetensors writes its weights alone"
        ) from error


def check_equal(graph: GraphDenoiser, run: Callable[[Sequence[Tensor]], Sequence[Tensor]], what: str) -> float:
    """The largest difference of a written graph to the model itself, for batches of one and of five.

    Args:
        graph: the model.
        run: the written graph: outputs for inputs.
        what: it, for the message.

    Raises:
        ValueError: if they differ by more than rounding.
    """
    worst = 0.0
    for batch in (1, 5):
        inputs = graph.example(batch, seed=batch)
        with torch.no_grad():
            expected = dict(zip(graph.outputs, graph(*inputs), strict=True))
        found = dict(zip(graph.outputs, run(inputs), strict=True))
        sigma = graph.denoiser.schedule.sigma(inputs[1]).view(-1, 1, 1, 1)
        for name, value in expected.items():
            scale = sigma if name == "eps" else torch.ones_like(sigma)
            extent = max(1.0, float((value * scale).abs().max()))
            difference = float(((found[name] - value) * scale).abs().max()) / extent
            if not difference <= TOLERANCE:  # nor if it is not a number
                raise ValueError(
                    f"{what} differs from the model by {difference:.2g} in {name}, and more than {TOLERANCE:g} is not "
                    "rounding: not written"
                )
            worst = max(worst, difference)
    return worst


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
