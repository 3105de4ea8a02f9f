"""The U-Net of DDPM, Improved DDPM and ADM."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.condition import Condition
from diffusion_lit.model.base import Network
from diffusion_lit.model.block import Attention, GroupNorm, ResBlock, downsample, upsample, zero
from diffusion_lit.model.embedding import TimeEmbedding, add_condition
from diffusion_lit.model.level import check_counts, check_halvings, widths_of
from diffusion_lit.resolution import height_and_width

RESAMPLING = ("conv", "conv_same", "residual")


class UNet(Network):
    """A convolutional U-Net with self-attention, conditioned on the time and, optionally, a class.

    It is the network of DDPM (Ho et al. 2020, appendix B, arXiv:2006.11239), Improved DDPM (Nichol & Dhariwal 2021,
    arXiv:2102.09672) and ADM (Dhariwal & Nichol 2021, arXiv:2105.05233), each exactly: conf/model has their settings.

    Args:
        resolution: height and width of the images, one number or two; each must be divisible by `fold`, and then by 2
            for each level after the first.
        image_channels: in and out: 1 or 3, or those of latents.
        channels: width of the first level.
        channel_multipliers: width of each level, as multiples of `channels`; the resolution halves between levels.
        num_res_blocks: residual blocks on each level on the way down; one more on the way up.
        attention_resolutions: the feature maps' sizes, of the shorter side and after folding, at which residual blocks
            are followed by self-attention. The middle always has it.
        head_channels: the size of each attention head; or
        num_heads: how many heads each attention has, whatever its width. With neither, a single head.
        qkv_by_head: the order of rows in attention's projection (see `Attention`).
        num_groups, norm_eps: groups of each GroupNorm, and what it adds to the variance.
        dropout: probability inside residual blocks.
        time_conditioning: `additive` or `scale_shift`.
        time_channels: how many sines and cosines of the time there are, and a quarter of its embedding's width; None
            takes `channels`.
        time_scale, frequency_shift, cosine_first: what they are taken of, and in which order (see `TimeEmbedding`).
        resampling: `conv` (strided convolution; repeat and convolve), `conv_same` (the same, with its strided
            convolutions padded on the right and below only) or `residual` (a residual block that resamples).
        num_classes: None for an unconditional network; else labels are 0..num_classes - 1, or `NO_CLASS`.
        null_class: whether there is an embedding for `NO_CLASS`, after those of the classes.
        augmentation_dim: how many numbers of EDM's augment label it takes; 0 for none.
        learn_variance: twice as many channels out as in; the second half says how uncertain a reverse step is
            (Nichol & Dhariwal 2021, section 3.1).
        fold: each square of `fold` x `fold` pixels becomes one pixel of `fold`^2 times the channels before the first
            layer, and is spread out again after the last ("space to depth", Shi et al. 2016, arXiv:1609.05158): the
            network runs at a smaller resolution. 1 leaves images as they are.

    Raises:
        ValueError: if the resolution does not fit, or an option has a value not listed here.
    """

    def __init__(
        self,
        resolution: int | Sequence[int],
        image_channels: int,
        channels: int = 128,
        channel_multipliers: Sequence[float] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        head_channels: int | None = None,
        num_groups: int = 32,
        dropout: float = 0.0,
        time_conditioning: str = "additive",
        resampling: str = "conv",
        num_classes: int | None = None,
        learn_variance: bool = False,
        augmentation_dim: int = 0,
        num_heads: int | None = None,
        qkv_by_head: bool = False,
        norm_eps: float = 1e-5,
        time_channels: int | None = None,
        time_scale: float = 1.0,
        frequency_shift: float = 0.0,
        cosine_first: bool = False,
        null_class: bool = True,
        fold: int = 1,
    ) -> None:
        super().__init__()
        heads = {"head_channels": head_channels, "num_heads": num_heads}
        check_counts(num_classes, image_channels=image_channels, num_groups=num_groups, **heads)
        height, width = height_and_width(resolution, "model.resolution")
        check_halvings((height, width), len(channel_multipliers) - 1, fold)
        widths = widths_of(channels, channel_multipliers, num_groups)
        if time_conditioning not in ("additive", "scale_shift"):
            raise ValueError(f"time_conditioning must be additive or scale_shift, got {time_conditioning!r}")
        if resampling not in RESAMPLING:
            raise ValueError(f"resampling must be conv, conv_same or residual, got {resampling!r}")
        if head_channels and num_heads:
            raise ValueError(f"give head_channels={head_channels} or num_heads={num_heads}, and null for the other")
        time_channels = time_channels or channels
        if time_channels % 2 or not frequency_shift < time_channels / 2:
            raise ValueError(
                f"the time has as many sines as cosines, and more of each than frequency_shift={frequency_shift}: "
                f"time_channels={time_channels} must be even, and more than twice that"
            )

        self.image_shape = (image_channels, height, width)
        self.num_classes, self.learn_variance, self.augmentation_dim = num_classes, learn_variance, augmentation_dim
        self.null_class, self.fold = null_class, fold
        emb_channels = 4 * time_channels

        res_block = partial(
            ResBlock,
            emb_channels=emb_channels,
            num_groups=num_groups,
            dropout=dropout,
            scale_shift=time_conditioning == "scale_shift",
            norm_eps=norm_eps,
        )
        attention = partial(
            Attention,
            num_groups=num_groups,
            head_channels=head_channels,
            num_heads=num_heads,
            qkv_by_head=qkv_by_head,
            norm_eps=norm_eps,
        )

        def level(c_in: int, c_out: int, size: int) -> nn.ModuleList:
            attends = [attention(c_out)] if size in attention_resolutions else []
            return nn.ModuleList([res_block(c_in, c_out), *attends])

        def reduce(c: int) -> nn.Module:
            by_block = resampling == "residual"
            return res_block(c, c, resample=nn.AvgPool2d(2)) if by_block else downsample(c, resampling == "conv_same")

        def enlarge(c: int) -> nn.Module:
            by_block = resampling == "residual"
            return res_block(c, c, resample=nn.Upsample(scale_factor=2)) if by_block else upsample(c)

        self.time = TimeEmbedding(time_channels, emb_channels, time_scale, frequency_shift, cosine_first)
        self.label = nn.Embedding(num_classes + null_class, emb_channels) if num_classes is not None else None
        # without a bias, and so without effect on an image left as it is
        self.augmentation = nn.Linear(augmentation_dim, emb_channels, bias=False) if augmentation_dim else None
        self.first = nn.Conv2d(fold**2 * image_channels, channels, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, size, skips = channels, min(height, width) // fold, [channels]
        for i, c_out in enumerate(widths):
            if i > 0:
                size //= 2
                self.down.append(nn.ModuleList([reduce(c)]))
                skips.append(c)
            for _ in range(num_res_blocks):
                self.down.append(level(c, c_out, size))
                c = c_out
                skips.append(c)

        self.middle = nn.ModuleList([res_block(c, c), attention(c), res_block(c, c)])

        for i, c_out in reversed(list(enumerate(widths))):
            for _ in range(num_res_blocks + 1):
                self.up.append(level(c + skips.pop(), c_out, size))
                c = c_out
            if i > 0:
                size *= 2
                self.up[-1] = nn.ModuleList([*self.up[-1].children(), enlarge(c)])

        last = zero(nn.Conv2d(c, fold**2 * image_channels * (1 + learn_variance), 3, padding=1))
        self.last = nn.Sequential(GroupNorm(num_groups, c, norm_eps), nn.SiLU(), last)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        emb = add_condition(self.time(c_noise), condition, self.label, self.augmentation, self.null_class)
        h = self.first(F.pixel_unshuffle(x, self.fold).to(self.first.weight.dtype))
        skips = [h]
        for layers in self.down:
            h = apply(layers, h, emb)
            skips.append(h)
        h = apply(self.middle, h, emb)
        for layers in self.up:
            h = apply(layers, torch.cat([h, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.last(h), self.fold)

    def blocks(self) -> Iterable[nn.Module]:
        return (layer for layer in self.modules() if isinstance(layer, ResBlock | Attention))

    def matrices(self) -> Iterable[nn.Parameter]:  # of convolutions that resample too
        return (p for part in (self.down, self.middle, self.up) for p in part.parameters() if p.ndim > 1)

    def class_parameters(self) -> Iterable[str]:
        return () if self.label is None else ("label.weight",)


def apply(layers: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """Pass `h` through the layers in turn; residual blocks receive the embedding too."""
    for layer in layers.children():
        h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
    return h
