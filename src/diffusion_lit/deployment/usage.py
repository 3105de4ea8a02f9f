"""How an exported model is sampled from: commands and programs for its card, which work when they are pasted."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from diffusion_lit.command_line.sample_settings import STEPS, sample_settings
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.graph_file import ONNX, TORCH_EXPORT
from diffusion_lit.space import LatentSpace, Space

__all__ = ["default_steps", "num_steps", "settings_for", "usage"]

PIPELINE = """\
import torch
from diffusers import DDIMPipeline

pipeline = DDIMPipeline.from_pretrained({place!r})
generator = torch.Generator().manual_seed(0)
images = pipeline(batch_size=4, generator=generator, num_inference_steps={steps}, use_clipped_model_output=True).images
"""
LOOP = """\
import torch
from diffusers import DDIMScheduler, {network}

network = {network}.from_pretrained({place!r}{subfolder})
scheduler = DDIMScheduler.from_pretrained({place!r}, subfolder="scheduler")
scheduler.set_timesteps({steps})
images = torch.randn(4, {c}, {h}, {w}, generator=torch.Generator().manual_seed(0))
{labels}for t in scheduler.timesteps:
    with torch.no_grad():
        output = network(images, t{condition}).sample[:, :{c}]
    images = scheduler.step(output, t, images, use_clipped_model_output=True).prev_sample
"""
FLOW = """\
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, {network}

network = {network}.from_pretrained({place!r}{subfolder})
scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained({place!r}, subfolder="scheduler")
scheduler.set_timesteps(sigmas=[1 - i / {steps} for i in range({steps})])
images = torch.randn(4, {c}, {h}, {w}, generator=torch.Generator().manual_seed(0))
{labels}for t in scheduler.timesteps:
    with torch.no_grad():
        output = network(images, t.expand(4){condition}).sample
    images = scheduler.step(output, t, images).prev_sample
"""
DECODE = """\

from diffusers import AutoModel

autoencoder = AutoModel.from_pretrained({autoencoder!r})
with torch.no_grad():
    images = autoencoder.decode(images / {scale} + {shift}).sample  # [-1, 1]
"""
GRAPH = """\
import json

import numpy as np
{imports}

{load}
table = metadata["sampling"]
x = np.random.default_rng(0).standard_normal((4, {c}, {h}, {w}), dtype=np.float32) * np.float32(table["sigma"][0])
{labels}for i, t in enumerate(table["t"][:-1]):
    alpha, sigma, alpha_s, sigma_s = (np.float32(table[name][j]) for j in (i, i + 1) for name in ("alpha", "sigma"))
    x_0 = {call}
{clip}    x = alpha_s * x_0 + sigma_s * (x - alpha * x_0) / sigma
images = x  # {meaning}
"""
ONNX_LOAD = """\
session = ort.InferenceSession({file!r})
metadata = json.loads(session.get_modelmeta().custom_metadata_map["diffusion_lit.json"])"""
ONNX_CALL = 'session.run(["x_0"], {{"x_t": x, "t": np.full(4, t, np.float32){condition}}})[0]'
TORCH_LOAD = """\
extra = {{"diffusion_lit.json": ""}}
program = torch.export.load({file!r}, extra_files=extra).module()
metadata = json.loads(extra["diffusion_lit.json"])"""
TORCH_CALL = "program(torch.from_numpy(x), torch.full((4,), t){condition})[0].numpy()"


CHANNELS = (1, 2, 3, 4)
"""Of images that a pipeline of diffusers makes pictures of."""
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


def settings_for(denoiser: Denoiser) -> dict[str, object]:
    """What a command that draws from a model must say."""
    return sample_settings(denoiser.schedule.num_timesteps, denoiser.space.bounded)


def usage(format: str, place: str, on_hub: bool, denoiser: Denoiser, has_pipeline: bool) -> Iterator[str]:
    """The lines of a card that say how to sample.

    Args:
        format: what was exported.
        place: the folder, or its name on the Hub.
        on_hub: whether it is on the Hub.
        denoiser: the model.
        has_pipeline: whether a pipeline of diffusers draws its images.
    """
    c, h, w = denoiser.image_shape
    folder = place.partition("/")[2] if on_hub else place
    shape = {"c": c, "h": h, "w": w, "place": place, "steps": num_steps(denoiser)}
    labelled, decoding = denoiser.num_classes is not None, decoding_of(denoiser.space, on_hub)
    download = [shlex.join(["hf", "download", place, "--local-dir", folder])] if on_hub else []
    if format in ("safetensors", "diffusers"):
        yield from ("With diffusion-lit (`pip install diffusion-lit`):", "", "```sh", *download)
        settings = {"ckpt": folder, **settings_for(denoiser)}
        settings |= {"autoencoder": ELSEWHERE} if decoding and on_hub else {}
        given = [f"{key}={value}" for key, value in settings.items()]
        yield shlex.join(["python", "-m", "diffusion_lit.sample", *given])
        yield from ("```", "", "```python", *own_program(folder, denoiser, bool(decoding) and on_hub), "```", "")
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
        yield from graph_program(format, denoiser, {**shape, "place": folder}, decoding).splitlines()
        yield from ("```", "")


def decoding_of(space: Space, on_hub: bool) -> dict[str, object]:
    """How latents become images; nothing where they are images already."""
    if not isinstance(space, LatentSpace):
        return {}
    folder = ELSEWHERE if on_hub else str(Path(space.autoencoder).resolve())
    return {"autoencoder": folder, "scale": space.scale, "shift": space.shift}


def own_program(folder: str, denoiser: Denoiser, elsewhere: bool) -> Iterator[str]:
    """A program with diffusion-lit."""
    steps, given = default_steps(denoiser), ""
    if not denoiser.space.bounded:
        given = f", sampler=DDIMSampler({steps})"
    elif steps < STEPS:
        given = f", num_steps={steps}"
    yield "import diffusion_lit as dl"
    yield from ("from diffusion_lit.sampler import DDIMSampler",) if "DDIMSampler" in given else ()
    yield ""
    loaded = f"{folder!r}, autoencoder={ELSEWHERE!r}" if elsewhere else f"{folder!r}"
    yield f"images = dl.load({loaded}).sample(16{given})"


def program(has_pipeline: bool, labelled: bool, denoiser: Denoiser, shape: dict[str, object]) -> str:
    """A program with diffusers; its pipeline knows no classes."""
    drawable = denoiser.image_shape[0] in CHANNELS
    if has_pipeline and drawable and not labelled and not denoiser.learns_variance:
        return PIPELINE.format(**shape)
    network = {"UNet": "UNet2DModel", "DiT": "DiTTransformer2DModel"}[type(denoiser.network).__name__]
    parts = {
        "network": network,
        "subfolder": ', subfolder="unet"' if has_pipeline else "",
        "labels": f"labels = torch.arange(4) % {denoiser.num_classes}\n" if labelled else "",
        "condition": ", class_labels=labels" if labelled else "",
    }
    template = LOOP if denoiser.schedule.num_timesteps is not None else FLOW
    return template.format(**parts, **shape)


def graph_program(format: str, denoiser: Denoiser, shape: dict[str, object], decoding: dict[str, object]) -> str:
    onnx, labelled = format == "onnx", denoiser.num_classes is not None
    file = str(Path(str(shape["place"])) / (ONNX if onnx else TORCH_EXPORT))
    given = (', "label": labels' if onnx else ", torch.from_numpy(labels)") if labelled else ""
    return GRAPH.format(
        **shape,
        imports="import onnxruntime as ort" if onnx else "import torch",
        load=(ONNX_LOAD if onnx else TORCH_LOAD).format(file=file),
        call=(ONNX_CALL if onnx else TORCH_CALL).format(condition=given),
        labels=f"labels = np.arange(4) % {denoiser.num_classes}\n" if labelled else "",
        clip="    x_0 = x_0.clip(-1, 1)\n" if denoiser.space.bounded else "",
        meaning="latents, of which the autoencoder decodes x / {scale} + {shift}".format(**decoding)
        if decoding
        else "[-1, 1]",
    )
