"""A trained autoencoder of diffusers: images to latents, and back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.extra import require
from diffusion_lit.files import checksum
from diffusion_lit.picture.image import from_uint8, to_uint8
from diffusion_lit.trust.plain import read_as, read_json

__all__ = ["Autoencoder", "scale_and_shift"]

WEIGHTS = "diffusion_pytorch_model.safetensors"
LATENTS: dict[str, Callable[[Any], Tensor]] = {
    "AutoencoderKL": lambda encoded: encoded.latent_dist.mode(),
    "AutoencoderTiny": lambda encoded: encoded.latents,
    "VQModel": lambda encoded: encoded.latents,
}
"""The kinds of autoencoders, and where each has its latents: without a random draw."""
SCALES = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0, "VQModel": 0.18215}
"""What a configuration without a `scaling_factor` means, as diffusers has it (0.18215: Rombach et al. 2022)."""
FACTS: dict[str, Any] = {"in_channels": int, "latent_channels": int}
PIXELS_AT_A_TIME = 2**19
"""Bounds the memory: eight images of 256 x 256. Stable Diffusion's decoder takes some 500 MB for one."""


class Autoencoder:
    """Not a module, so that no model's parameters, checkpoints or averages include it. Frozen, and always in float32.

    Args:
        folder: as diffusers' `save_pretrained` writes it: `config.json` and the weights as safetensors.
        sha256: of the weights' file, which must be these; None takes any.

    Raises:
        FileNotFoundError: if the folder is not there, or lacks one of the files.
        ValueError: if it is of no kind that is known here, is damaged or has other weights, or diffusers is missing.
    """

    def __init__(self, folder: str | Path, sha256: str | None = None) -> None:
        self.folder = Path(folder)
        self.config = read_config(self.folder)
        self.sha256 = hash_weights(self.folder)
        if sha256 is not None and self.sha256 != sha256:
            raise ValueError(
                f"the weights of the autoencoder {folder} (sha256 {self.sha256[:12]}...) are not those that made the "
                f"latents ({sha256[:12]}...): give the folder of the same autoencoder, autoencoder=FOLDER"
            )
        blocks = self.config.get("block_out_channels") or self.config["encoder_block_out_channels"]
        self.factor = 2 ** (len(blocks) - 1)
        """How many times larger the images are than the latents, in height and in width."""
        self.channels: int = self.config["latent_channels"]
        """Of the latents."""
        self.scale, self.shift = scale_and_shift(self.config, str(self.folder / "config.json"))
        """(latent - shift) scale has a variance of about 1."""
        self.network = load_network(self.folder, self.config["_class_name"])

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 [B, C, H, W] to latents as the encoder gives them, float32 [B, c, H / factor, W / factor].

        The mean of the posterior where there is one: the same at each call. Grey is repeated for an encoder of colour.

        Raises:
            ValueError: if height or width cannot be divided by `factor`, or the channels are not the encoder's.
        """
        channels, height, width = images.shape[1:]
        self.shape_of(channels, height, width)
        x = from_uint8(images).expand(-1, self.config["in_channels"], -1, -1)
        latents = LATENTS[self.config["_class_name"]]
        return self.in_parts(lambda part: latents(self.network.encode(part)), x, height * width)

    def shape_of(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latents of images of this shape; a ValueError if these cannot be encoded."""
        known = self.config["in_channels"]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"the autoencoder {self.folder} divides height and width by {self.factor}, and the images are "
                f"{height} x {width}: choose a resolution that is a multiple of {self.factor}"
            )
        if channels not in (1, known):
            raise ValueError(f"the autoencoder {self.folder} takes images of {known} channels, not {channels}")
        return self.channels, height // self.factor, width // self.factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents as `encode` gives them to images uint8 [B, C, H, W]."""
        num_pixels = latents.shape[-1] * latents.shape[-2] * self.factor**2
        return self.in_parts(lambda part: to_uint8(self.network.decode(part).sample), latents.float(), num_pixels)

    def in_parts(self, function: Callable[[Tensor], Tensor], x: Tensor, num_pixels: int) -> Tensor:
        """`function` of a few examples at a time, each an image of `num_pixels`; on the device of `x`, in float32."""
        self.network.to(x.device)
        with torch.autocast(x.device.type, enabled=False):  # half precision overflows in Stable Diffusion's decoder
            return torch.cat([function(part) for part in torch.split(x, max(1, PIXELS_AT_A_TIME // num_pixels))])


def scale_and_shift(config: Mapping[str, Any], origin: str) -> tuple[float, float]:
    """The numbers that an autoencoder's own description gives, or means; without one, Stable Diffusion's.

    Raises:
        ValueError: if one of them is not a number; `origin` is the file, for the message.
    """
    usual = SCALES.get(str(config.get("_class_name")), SCALES["AutoencoderKL"])
    scale = read_as(float, config.get("scaling_factor", usual), f"{origin}: scaling_factor")
    return scale, read_as(float | None, config.get("shift_factor"), f"{origin}: shift_factor") or 0.0


def read_config(folder: Path) -> dict[str, Any]:
    """The autoencoder's own description, which is checked."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the autoencoder {folder} does not exist; say where it is now: autoencoder=FOLDER")
    file = folder / "config.json"
    if not file.is_file():
        inside = [folder / part for part in ("vae", "vqvae", "movq") if (folder / part / "config.json").is_file()]
        remedy = f"its autoencoder is {inside[0]}" if inside else "give a folder that save_pretrained has written"
        raise FileNotFoundError(f"{folder} has no config.json, so it is not an autoencoder of diffusers; {remedy}")
    config = read_json(file)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in LATENTS:
        described = kind if isinstance(kind, str) and kind.isidentifier() else "no class"
        raise ValueError(f"{file} describes {described}; an autoencoder must be one of {', '.join(LATENTS)}")
    if config.get("quantization_config") is not None:
        raise ValueError(
            f"{file} is of quantized weights, which are not read here; give the autoencoder that was trained"
        )
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise ValueError(
            f"{file} scales each channel of the latents by itself (latents_mean, latents_std); only a scaling_factor "
            "and a shift_factor for all channels can be used here"
        )
    for key, hint in FACTS.items():
        read_as(hint, config.get(key), f"{file}: {key}")
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    read_as(list[int], blocks, f"{file}: the blocks' out_channels")
    return config


def hash_weights(folder: Path) -> str:
    """The SHA-256 of the weights' file.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if there are others, which diffusers would take instead.
    """
    if (folder / f"{WEIGHTS}.index.json").exists():
        raise ValueError(
            f"the autoencoder {folder} has its weights in parts; write it with save_pretrained, in one file"
        )
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"the autoencoder {folder} has no {WEIGHTS}; write it with save_pretrained")
    return checksum(folder / WEIGHTS)


def load_network(folder: Path, kind: str) -> Any:
    """The diffusers model in `folder`, in evaluation mode, without gradients."""
    diffusers = require("diffusers", "diffusers", "a latent model")
    options = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
    try:
        network, loading = getattr(diffusers, kind).from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # settings that are not what the class takes raise anything
        [reason, *_] = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"the autoencoder {folder} cannot be loaded ({reason})") from error
    if absent := loading["missing_keys"]:
        raise ValueError(f"{folder / WEIGHTS} lacks {len(absent)} weights of the autoencoder, such as {absent[0]}")
    return network.float().eval().requires_grad_(False)
