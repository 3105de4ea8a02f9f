"""Programs for a card that draw an exported model's images without this project, and work when they are pasted."""

from collections.abc import Mapping
from pathlib import Path

import torch

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.graph_file import ONNX, TORCH_EXPORT

__all__ = ["DECODE", "graph_program", "program"]

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
images = torch.randn(4, {c}, {h}, {w}, generator=torch.Generator().manual_seed(0)){start}
{labels}for t in scheduler.timesteps:
    with torch.no_grad():
        output = network(images, t.expand(4){condition}).sample[:, :{c}]
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


def program(has_pipeline: bool, labelled: bool, denoiser: Denoiser, shape: Mapping[str, object]) -> str:
    """A program with diffusers; its pipeline knows no classes, and begins with noise where a chain has signal left."""
    drawable, sigma = denoiser.image_shape[0] in CHANNELS, float(denoiser.schedule.sigma(torch.ones(())))
    ends_in_noise = sigma > 1 - 5e-5
    if has_pipeline and drawable and not labelled and not denoiser.learns_variance and ends_in_noise:
        return PIPELINE.format(**shape)
    network = {"UNet": "UNet2DModel", "DiT": "DiTTransformer2DModel"}[type(denoiser.network).__name__]
    parts = {
        "network": network,
        "subfolder": ', subfolder="unet"' if has_pipeline else "",
        "labels": f"labels = torch.arange(4) % {denoiser.num_classes}\n" if labelled else "",
        "condition": ", class_labels=labels" if labelled else "",
        "start": "" if ends_in_noise else f" * {sigma:.7g}  # the noise at the chain's end",
    }
    template = LOOP if denoiser.schedule.num_timesteps is not None else FLOW
    return template.format(**parts, **shape)


def graph_program(
    format: str, denoiser: Denoiser, shape: Mapping[str, object], decoding: Mapping[str, object], clip: float | None
) -> str:
    """A program with the runtime of a graph, for what `shape` says of the images."""
    onnx, labelled = format == "onnx", denoiser.num_classes is not None
    file = str(Path(str(shape["place"])) / (ONNX if onnx else TORCH_EXPORT))
    given = (', "label": labels' if onnx else ", torch.from_numpy(labels)") if labelled else ""
    return GRAPH.format(
        **shape,
        imports="import onnxruntime as ort" if onnx else "import torch",
        load=(ONNX_LOAD if onnx else TORCH_LOAD).format(file=file),
        call=(ONNX_CALL if onnx else TORCH_CALL).format(condition=given),
        labels=f"labels = np.arange(4) % {denoiser.num_classes}\n" if labelled else "",
        clip="" if clip is None else f"    x_0 = x_0.clip(-{clip:g}, {clip:g})\n",
        meaning="latents, of which the autoencoder decodes x / {scale} + {shift}".format(**decoding)
        if decoding
        else "[-1, 1]",
    )
