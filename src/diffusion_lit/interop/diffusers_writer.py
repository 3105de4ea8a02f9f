"""A model as a folder that diffusers loads: exactly, or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_lit.interop.diffusers_folder import CONFIG, INDEX, NETWORKS, SCHEDULER
from diffusion_lit.interop.diffusers_sampler import sampling_config
from diffusion_lit.interop.diffusers_scheduler import config_from
from diffusion_lit.interop.foreign import PIXELS, Foreign, door
from diffusion_lit.interop.weight_files import WEIGHTS

__all__ = ["DiffusersModel", "write"]

VERSION = {"_diffusers_version": "0.35.0"}
"""The oldest that all of it is known to be right for."""
COUNTERPARTS = {"UNet": "UNet2DModel", "DiT": "DiTTransformer2DModel"}
"""Networks of ours and theirs."""


class DiffusersModel:
    """What the files of a folder hold, all of it known before one is written.

    Args:
        model: what is exported.
        betas: of a discrete schedule, before its end is made noise; None of a continuous one.
        variance, clip: of sampling: `small` or `large`, where the network does not learn it, and the largest |x_0|.

    Raises:
        ValueError: if diffusers cannot express the model; the message names what.
    """

    def __init__(self, model: Foreign, betas: Sequence[float] | None, variance: str, clip: float | None) -> None:
        network = dict(model.denoiser["network"])
        name = str(network["_target_"]).rpartition(".")[2]
        if name not in COUNTERPARTS:
            raise ValueError(
                f"format=diffusers cannot express the network {name}: of these diffusers has an equal: "
                f"{', '.join(COUNTERPARTS)}. Use format=safetensors, onnx or torch_export"
            )
        self.network = COUNTERPARTS[name]
        theirs = door(NETWORKS[self.network])
        self.scheduler = config_from(model.denoiser["schedule"], model.denoiser["parameterization"], betas)
        own = {key.removeprefix("network."): weight for key, weight in model.weights.items()}
        try:
            self.config = {**theirs.config_from(network), **VERSION}
            self.weights = theirs.weights_to(own, network)
        except ValueError as error:
            raise ValueError(f"format=diffusers: {error}. Or use format=safetensors, onnx or torch_export") from error
        if self.scheduler["_class_name"] == "DDPMScheduler":
            self.scheduler |= sampling_config("learned" if network.get("learn_variance") else variance, clip)
        space = model.denoiser.get("space") or PIXELS
        self.note: dict[str, Any] = {"space": dict(space)}
        if self.network == "UNet2DModel":
            self.note["null_class"] = network["num_classes"] is not None and network.get("null_class", True)
        self.has_pipeline = (
            self.network == "UNet2DModel"
            and space["_target_"] == PIXELS["_target_"]
            and self.scheduler["_class_name"] == "DDPMScheduler"
        )
        """Whether a pipeline of diffusers draws its images; otherwise network and scheduler are loaded one by one."""


def write(written: DiffusersModel, folder: Path) -> None:
    """Write the files, but for the note, which says what they cannot, into a folder."""
    from safetensors.torch import save_file

    network = folder / "unet" if written.has_pipeline else folder
    for place in (network, folder / "scheduler"):
        place.mkdir(exist_ok=True)
    if written.has_pipeline:
        index = {"_class_name": "DDPMPipeline", **VERSION, "scheduler": ["diffusers", "DDPMScheduler"]}
        save(folder / INDEX, index | {"unet": ["diffusers", written.network]})
    save(network / CONFIG, written.config)
    save(folder / "scheduler" / SCHEDULER, {**written.scheduler, **VERSION})
    weights = {name: weight.detach().cpu().contiguous() for name, weight in written.weights.items()}
    save_file(weights, network / WEIGHTS[0], {"format": "pt"})


def save(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2))
