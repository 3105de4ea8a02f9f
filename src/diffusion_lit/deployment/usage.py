"""How an exported model is sampled from: commands and programs for its card, which work when they are pasted."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffusion_lit.command_line.sample_settings import STEPS, sample_settings
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.program import DECODE, graph_program, program
from diffusion_lit.space import LatentSpace, Space

__all__ = ["default_steps", "num_steps", "reading", "settings_for", "usage"]

ELSEWHERE = "FOLDER_OF_ITS_AUTOENCODER"


def num_steps(denoiser: Denoiser) -> int:
    """As near to 50 as a number of steps that divides those of a chain, as diffusers needs it."""
    chain = denoiser.schedule.num_timesteps
    if chain is None:
        return STEPS
    return min((n for n in range(1, chain + 1) if chain % n == 0), key=lambda n: max(n / STEPS, STEPS / n))


def default_steps(denoiser: Denoiser) -> int:
    """As many as samplers take by themselves, or all of a shorter chain."""
    return min(STEPS, denoiser.schedule.num_timesteps or STEPS)


def reading(weights: str | None, allow: Sequence[str]) -> dict[str, str | list[str]]:
    """What `load` must be given beside the place: the name of weights that are not `ema`, and modules of one's own."""
    named: dict[str, str | list[str]] = {} if weights in (None, "ema") else {"weights": str(weights)}
    return named | ({"allow": list(allow)} if allow else {})


def settings_for(denoiser: Denoiser, reading: Mapping[str, str | list[str]], clip: float | None) -> dict[str, object]:
    """The settings of `sample` that its defaults do not fit.

    Args:
        denoiser: the model.
        reading: as `reading` gives it.
        clip: the largest |x_0| when its images are drawn, or None.
    """
    given = {key: value if isinstance(value, str) else f"[{','.join(value)}]" for key, value in reading.items()}
    return given | sample_settings(denoiser.schedule.num_timesteps, clip)


def usage(
    format: str,
    place: str,
    on_hub: bool,
    denoiser: Denoiser,
    has_pipeline: bool,
    reading: Mapping[str, str | list[str]],
    clip: float | None,
) -> Iterator[str]:
    """The lines of a card that say how to sample.

    Args:
        format: what was exported.
        place: the folder, or its name on the Hub.
        on_hub: whether it is on the Hub.
        denoiser: the model.
        has_pipeline: whether a pipeline of diffusers draws its images.
        reading, clip: as for `settings_for`.
    """
    c, h, w = denoiser.image_shape
    folder = place.partition("/")[2] if on_hub else place
    shape = {"c": c, "h": h, "w": w, "place": place, "steps": num_steps(denoiser)}
    labelled, decoding = denoiser.num_classes is not None, decoding_of(denoiser.space, on_hub)
    download = [shlex.join(["hf", "download", place, "--local-dir", folder])] if on_hub else []
    if format in ("safetensors", "diffusers"):
        yield from ("With diffusion-lit (`pip install diffusion-lit`):", "", "```sh", *download)
        settings = {"ckpt": folder, **settings_for(denoiser, reading, clip)}
        elsewhere = {"autoencoder": ELSEWHERE} if decoding and on_hub else {}
        settings, loaded = settings | elsewhere, {**reading, **elsewhere}
        given = [f"{key}={value}" for key, value in settings.items()]
        yield shlex.join(["python", "-m", "diffusion_lit.sample", *given])
        yield from ("```", "", "```python", *own_program(folder, denoiser, loaded, clip), "```", "")
    if format == "diffusers":
        what = "images" if denoiser.schedule.num_timesteps is not None else "images as with `sampler.clip=null`"
        what = "latents, and their images," if decoding else what
        yield from (f"With diffusers, the same {what} from the same noise:", "", "```python")
        yield from program(has_pipeline, labelled, denoiser, shape).splitlines()
        yield from (*(DECODE.format(**decoding).splitlines() if decoding else ()), "```", "")
    if format in ("onnx", "torch_export"):
        if download:
            yield from ("```sh", *download, "```", "")
        yield from ("By DDIM, without diffusion-lit:", "", "```python")
        yield from graph_program(format, denoiser, {**shape, "place": folder}, decoding, clip).splitlines()
        yield from ("```", "")


def decoding_of(space: Space, on_hub: bool) -> dict[str, object]:
    """How latents become images; nothing where they are images already."""
    if not isinstance(space, LatentSpace):
        return {}
    folder = ELSEWHERE if on_hub else str(Path(space.autoencoder).resolve())
    return {"autoencoder": folder, "scale": space.scale, "shift": space.shift}


def own_program(folder: str, denoiser: Denoiser, loaded: Mapping[str, object], clip: float | None) -> Iterator[str]:
    """A program with diffusion-lit."""
    steps, given = default_steps(denoiser), ""
    if clip != 1:
        given = f", sampler=DDIMSampler({steps}{'' if clip is None else f', clip={clip:g}'})"
    elif steps < STEPS:
        given = f", num_steps={steps}"
    yield "import diffusion_lit as dl"
    yield from ("from diffusion_lit.sampler import DDIMSampler",) if "DDIMSampler" in given else ()
    yield ""
    arguments = ", ".join([repr(folder), *(f"{key}={value!r}" for key, value in loaded.items())])
    yield f"images = dl.load({arguments}).sample(16{given})"
