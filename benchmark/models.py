"""Every member of conf/model as a table: parameters, arithmetic, memory.

    python benchmark/models.py docs/models.md

Nothing is trained, and no memory is taken: networks are on the meta device, where tensors are shapes alone. Each is
built for the images of its paper, of which `IMAGES` has a line for each member.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lit.command_line.catalogue import member_settings, read
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.condition import Condition
from diffusion_lit.model import Network


@dataclass(frozen=True)
class Images:
    """What a network is built for: the images, or latents, of its paper, and their classes."""

    resolution: int
    channels: int
    num_classes: int | None
    learn_variance: bool = False

    def __str__(self) -> str:
        shape = f"{self.channels} × {self.resolution} × {self.resolution}"
        return shape if self.num_classes is None else f"{shape}, {self.num_classes} classes"


LATENTS = Images(32, 4, 1000, learn_variance=True)
IMAGES = {
    "tiny": Images(8, 1, 10),
    "dit_tiny": Images(8, 1, 10),
    "small": Images(32, 1, 10),
    "base": Images(32, 3, None),
    "large": Images(64, 3, None, learn_variance=True),
    "ddpm": Images(32, 3, None),
    "ddpm_256": Images(256, 3, None),
    "iddpm_cifar10": Images(32, 3, None, learn_variance=True),
    "iddpm_imagenet64": Images(64, 3, None, learn_variance=True),
    "adm_imagenet64": Images(64, 3, 1000, learn_variance=True),
    "adm_imagenet128": Images(128, 3, 1000, learn_variance=True),
    "adm_imagenet256": Images(256, 3, 1000, learn_variance=True),
    "adm_imagenet512": Images(512, 3, 1000, learn_variance=True),
    "ddpmpp": Images(32, 3, 10),
    "ncsnpp": Images(32, 3, 10),
    "edm2_xs": Images(64, 4, 1000),
    "edm2_s": Images(64, 4, 1000),
    "edm2_m": Images(64, 4, 1000),
    "edm2_l": Images(64, 4, 1000),
    "edm2_xl": Images(64, 4, 1000),
    "edm2_xxl": Images(64, 4, 1000),
    "dit_s": LATENTS,
    "dit_b": LATENTS,
    "dit_l": LATENTS,
    "dit_xl": LATENTS,
}
"""In the order of the table. A new member of conf/model is a new line here; then write the page anew."""
COLUMNS = ("model", "images", "parameters", "state", "forward", "activations", "source")
STATE_BYTES = 16
"""For each parameter in float32: itself, its average, and Adam's two moments."""
HEADER = """# Networks

Written by `python benchmark/models.py docs/models.md`, and checked by a test. Each network of `model=` for the images,
or latents, of its paper; others make other figures.

- **parameters** counts all that is trained.
- **state** is what training keeps whatever the batch: weights, one average of them and Adam's two moments, all in
  float32, 16 bytes a parameter. Gradients add 4 more.
- **forward** is the arithmetic of one image's way through the network, in floating-point operations, a multiplication
  and the addition after it being two. Convolutions, dense layers and attention count; norms and activation functions
  don't. A training step takes about three times as many; a sampling step calls the network once, or twice with guidance
  or by `heun`.
- **activations** is what one more image in the batch adds in training: the tensors that PyTorch saves for the backward
  pass, in float32, with fused attention where the network's layout allows it. It is counted, not measured: what kernels
  take for themselves, and the allocator's gaps, come on top.

"""


def settings(name: str) -> DictConfig:
    """The member's settings for the images of its paper."""
    if name not in IMAGES:
        raise ValueError(f"benchmark/models.py: conf/model/{name}.yaml needs a line in IMAGES, the images of its paper")
    images = IMAGES[name]
    chosen = {key.removeprefix("model."): setting.value for key, setting in member_settings("model", name)}
    given = {"resolution": images.resolution, "image_channels": images.channels, "num_classes": images.num_classes}
    given |= {"learn_variance": images.learn_variance, "augmentation_dim": 0}
    return OmegaConf.create(chosen | {key: value for key, value in given.items() if key in chosen})


def on_meta(name: str) -> Network:
    with torch.device("meta"):
        return instantiate(settings(name))


def given(network: Network, batch: int) -> tuple[Tensor, Tensor, Condition]:
    """Inputs on the meta device."""
    label = None if network.num_classes is None else torch.empty(batch, dtype=torch.long, device="meta")
    x = torch.empty(batch, *network.image_shape, device="meta")
    return x, torch.empty(batch, device="meta"), Condition(label)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def forward_flops(network: Network) -> int:
    """Of one image, by a network on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*given(network, 1))
    return counter.get_total_flops()


class FusedAttention(torch.autograd.Function):
    """A fused kernel as far as memory goes: it keeps queries, keys, values, output and a number for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        ctx.save_for_backward(q, k, v, output, q.new_empty(q.shape[:-1]))
        return output


class WithFusedAttention(TorchFunctionMode):
    """Where PyTorch has a fused kernel: on the meta device it would take the one that keeps all products instead.

    Fused kernels need the channels of a head side by side in memory.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and all(tensor.stride(-1) == 1 for tensor in args):
            return FusedAttention.apply(*args)
        return func(*args, **(kwargs or {}))


def saved_bytes(network: Network, batch: int) -> int:
    """What a forward pass keeps for the backward one, each storage once, no parameters."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept = {}  # storages, not only their addresses, which would be used again

    def save(saved: Tensor) -> Tensor:
        if (storage := saved.untyped_storage())._cdata not in own:
            kept[storage._cdata] = storage
        return saved

    with saved_tensors_hooks(save, lambda saved: saved), WithFusedAttention():
        output = network.train()(*given(network, batch))
    assert output.grad_fn is not None
    return sum(storage.nbytes() for storage in kept.values())


def activation_bytes(network: Network) -> int:
    """What one image more adds."""
    return saved_bytes(network, 2) - saved_bytes(network, 1)


def source(name: str) -> str:
    """The first citation in the comment that the file begins with."""
    about = " ".join(read(CONFIG_FOLDER / "model" / f"{name}.yaml").about)
    cited = re.search(r"\(([^()]*\b(?:19|20)\d\d\b[^()]*)\)", about)
    return cited[1] if cited else "this project"


def size(name: str, network: Network) -> list[str]:
    """The cells of a row that are known without running anything."""
    count = parameters(network)
    return [f"`{name}`", str(IMAGES[name]), f"{count / 1e6:.4g} M", f"{count * STATE_BYTES / 2**20:,.0f} MiB"]


def rounded(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def row(name: str) -> list[str]:
    network = on_meta(name)
    work = [f"{rounded(forward_flops(network) / 1e9)} G", f"{rounded(activation_bytes(network) / 2**20)} MiB"]
    return [*size(name, network), *work, source(name)]


def members() -> list[str]:
    """Those of conf/model, in the table's order."""
    found = {path.stem for path in (CONFIG_FOLDER / "model").glob("*.yaml")}
    return [*(name for name in IMAGES if name in found), *sorted(found - IMAGES.keys())]


def page(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * 4, "---"]
    return HEADER + "".join(f"| {' | '.join(cells)} |\n" for cells in (COLUMNS, rule, *rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the page to write")
    args = parser.parse_args()
    args.out.write_text(page([row(name) for name in members()]), encoding="utf-8")


if __name__ == "__main__":
    main()
