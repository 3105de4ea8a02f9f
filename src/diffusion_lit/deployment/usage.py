"""How an exported model is sampled from: commands and programs for its card, which work when they are pasted."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.graph_file import ONNX, TORCH_EXPORT

__all__ = ["usage"]

PIPELINE = """\
import torch
from diffusers import DDIMPipeline

pipeline = DDIMPipeline.from_pretrained({place!r})
generator = torch.Generator().manual_seed(0)
images = pipeline(batch_size=4, generator=generator, num_inference_steps=50, use_clipped_model_output=True).images
"""
LOOP = """\
import torch
from diffusers import DDIMScheduler, {network}

network = {network}.from_pretrained({place!r}{subfolder})
scheduler = DDIMScheduler.from_pretrained({place!r}, subfolder="scheduler")
scheduler.set_timesteps(50)
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
scheduler.set_timesteps(50)
images = torch.randn(4, {c}, {h}, {w}, generator=torch.Generator().manual_seed(0))
{labels}for t in scheduler.timesteps:
    with torch.no_grad():
        output = network(images, t.expand(4){condition}).sample
    images = scheduler.step(output, t, images).prev_sample
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


def usage(format: str, place: str, on_hub: bool, denoiser: Denoiser, has_pipeline: bool) -> Iterator[str]:
    """The lines of a card that say how to sample.

    Args:
        format: what was exported.
        place: its folder, or its name on the Hub.
        on_hub: whether it is on the Hub.
        denoiser: the model.
        has_pipeline: whether a pipeline of diffusers draws its images.
    """
    c, h, w = denoiser.image_shape
    shape = {"c": c, "h": h, "w": w, "place": place}
    labelled = denoiser.num_classes is not None
    if format in ("safetensors", "diffusers"):
        yield from ("With diffusion-lit (`pip install diffusion-lit`):", "", "```sh")
        folder = place
        if on_hub:
            folder = place.partition("/")[2]
            yield shlex.join(["hf", "download", place, "--local-dir", folder])
        yield from (shlex.join(["python", "-m", "diffusion_lit.sample", f"ckpt={folder}"]), "```", "")
        yield from (
            "```python",
            "import diffusion_lit as dl",
            "",
            f"images = dl.load({folder!r}).sample(16)",
            "```",
            "",
        )
    if format == "diffusers":
        yield from ("With diffusers, the same images from the same noise:", "", "```python")
        yield from program(has_pipeline, labelled, denoiser, shape).splitlines()
        yield from ("```", "")
    if format in ("onnx", "torch_export"):
        yield from ("By DDIM, without diffusion-lit:", "", "```python")
        yield from graph_program(format, denoiser, shape, labelled).splitlines()
        yield from ("```", "")


def program(has_pipeline: bool, labelled: bool, denoiser: Denoiser, shape: dict[str, object]) -> str:
    """A program with diffusers; its pipeline knows no classes."""
    if has_pipeline and not labelled and not denoiser.learns_variance:
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


def graph_program(format: str, denoiser: Denoiser, shape: dict[str, object], labelled: bool) -> str:
    onnx = format == "onnx"
    file = str(Path(str(shape["place"])) / (ONNX if onnx else TORCH_EXPORT))
    given = (', "label": labels' if onnx else ", torch.from_numpy(labels)") if labelled else ""
    return GRAPH.format(
        **shape,
        imports="import onnxruntime as ort" if onnx else "import torch",
        load=(ONNX_LOAD if onnx else TORCH_LOAD).format(file=file),
        call=(ONNX_CALL if onnx else TORCH_CALL).format(condition=given),
        labels=f"labels = np.arange(4) % {denoiser.num_classes}\n" if labelled else "",
        clip="    x_0 = x_0.clip(-1, 1)\n" if denoiser.space.bounded else "",
        meaning="[-1, 1]" if denoiser.space.bounded else "latents",
    )
