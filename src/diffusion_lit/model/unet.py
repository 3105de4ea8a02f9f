"""The U-Net of DDPM and Improved DDPM."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.model.base import Network
from diffusion_lit.model.block import Attention, ResBlock, TimeEmbedding, downsample, upsample, zero
from diffusion_lit.resolution import height_and_width, multiples_near


class UNet(Network):
    """A convolutional U-Net with self-attention, conditioned on the time and, optionally, a class.

    With the defaults and `channels=128, dropout=0.1` it is DDPM's network for CIFAR-10, 35.7 M parameters
    (Ho et al. 2020, appendix B, arXiv:2006.11239). Improved DDPM's (Nichol & Dhariwal 2021, arXiv:2102.09672) adds
    `time_conditioning=scale_shift` and `head_channels`; ADM's (Dhariwal & Nichol 2021) `resampling=residual`.

    Args:
        resolution: height and width of the images, one number or two; each must be divisible by 2 for each level after
            the first.
        image_channels: in and out: 1 or 3, or those of latents.
        channels: width of the first level.
        channel_multipliers: width of each level, as multiples of `channels`; the resolution halves between levels.
        num_res_blocks: residual blocks on each level on the way down; one more on the way up.
        attention_resolutions: the feature maps' sizes, of the shorter side, at which residual blocks are followed by
            self-attention. The middle always has it.
        head_channels: the size of each attention head; None takes a single head.
        num_groups: groups of each GroupNorm.
        dropout: probability inside residual blocks.
        time_conditioning: `additive` or `scale_shift`.
        resampling: `conv` (strided convolution; repeat and convolve) or `residual` (a residual block that resamples).
        num_classes: None for an unconditional network; else labels are 0..num_classes - 1, or `NO_CLASS`.
        augmentation_dim: how many numbers of EDM's augment label it takes; 0 for none.
        learn_variance: twice as many channels out as in; the second half says how uncertain a reverse step is
            (Nichol & Dhariwal 2021, section 3.1).

    Raises:
        ValueError: if the resolution does not fit, or an option has a value not listed here.
    """

    def __init__(
        self,
        resolution: int | Sequence[int],
        image_channels: int,
        channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 2),
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
    ) -> None:
        super().__init__()
        factor = 2 ** (len(channel_multipliers) - 1)
        sides = height_and_width(resolution, "model.resolution")
        if any(side % factor for side in sides):
            below, above = multiples_near(resolution, factor)
            raise ValueError(
                f"the network halves the image {len(channel_multipliers) - 1} times, so the resolution must be a "
                f"multiple of {factor}, and {resolution} is not; {below} and {above} are. Set "
                "data.resolution, or shorten model.channel_multipliers"
            )
        if image_channels < 1:
            raise ValueError(f"model.image_channels must be at least 1, got {image_channels}; auto takes the data's")
        if time_conditioning not in ("additive", "scale_shift"):
            raise ValueError(f"time_conditioning must be additive or scale_shift, got {time_conditioning!r}")
        if resampling not in ("conv", "residual"):
            raise ValueError(f"resampling must be conv or residual, got {resampling!r}")
        if channels % num_groups:
            raise ValueError(f"model.channels={channels} must be a multiple of model.num_groups={num_groups}")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, or null for an unconditional model; got {num_classes}")

        self.image_shape = (image_channels, *sides)
        self.num_classes, self.learn_variance, self.augmentation_dim = num_classes, learn_variance, augmentation_dim
        out_channels = 2 * image_channels if learn_variance else image_channels
        emb_channels = 4 * channels

        def res_block(c_in: int, c_out: int, resample: nn.Module | None = None) -> ResBlock:
            scale_shift = time_conditioning == "scale_shift"
            return ResBlock(c_in, c_out, emb_channels, num_groups, dropout, scale_shift, resample)

        def level(c_in: int, c_out: int, size: int) -> nn.ModuleList:
            attends = size in attention_resolutions
            attention = [Attention(c_out, num_groups, head_channels)] if attends else []
            return nn.ModuleList([res_block(c_in, c_out), *attention])

        self.time = TimeEmbedding(channels, emb_channels)
        self.label = nn.Embedding(num_classes + 1, emb_channels) if num_classes is not None else None
        # without a bias, and so without effect on an image left as it is
        self.augmentation = nn.Linear(augmentation_dim, emb_channels, bias=False) if augmentation_dim else None
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, size, skips = channels, min(sides), [channels]
        for i, multiplier in enumerate(channel_multipliers):
            if i > 0:
                size //= 2
                reduce = downsample(c) if resampling == "conv" else res_block(c, c, nn.AvgPool2d(2))
                self.down.append(nn.ModuleList([reduce]))
                skips.append(c)
            for _ in range(num_res_blocks):
                self.down.append(level(c, channels * multiplier, size))
                c = channels * multiplier
                skips.append(c)

        self.middle = nn.ModuleList([res_block(c, c), Attention(c, num_groups, head_channels), res_block(c, c)])

        for i, multiplier in reversed(list(enumerate(channel_multipliers))):
            for _ in range(num_res_blocks + 1):
                self.up.append(level(c + skips.pop(), channels * multiplier, size))
                c = channels * multiplier
            if i > 0:
                size *= 2
                enlarge = upsample(c) if resampling == "conv" else res_block(c, c, nn.Upsample(scale_factor=2))
                self.up[-1] = nn.ModuleList([*self.up[-1].children(), enlarge])

        last = zero(nn.Conv2d(c, out_channels, 3, padding=1))
        self.last = nn.Sequential(nn.GroupNorm(num_groups, c), nn.SiLU(), last)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        emb = self.time(c_noise)
        if self.label is not None:
            label = condition.label
            if label is None:
                label = torch.full((len(x),), NO_CLASS, device=x.device)
            emb = emb + self.label(label.where(label != NO_CLASS, self.label.num_embeddings - 1))
        if self.augmentation is not None and condition.augment_label is not None:
            emb = emb + self.augmentation(condition.augment_label.to(self.augmentation.weight.dtype))

        h = self.first(x.to(self.first.weight.dtype))
        skips = [h]
        for layers in self.down:
            h = apply(layers, h, emb)
            skips.append(h)
        h = apply(self.middle, h, emb)
        for layers in self.up:
            h = apply(layers, torch.cat([h, skips.pop()], dim=1), emb)
        return self.last(h)

    def blocks(self) -> Iterable[nn.Module]:
        return (layer for layer in self.modules() if isinstance(layer, ResBlock | Attention))

    def class_parameters(self) -> Iterable[str]:
        return () if self.label is None else ("label.weight",)


def apply(layers: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """Pass `h` through the layers in turn; residual blocks receive the embedding too."""
    for layer in layers.children():
        h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
    return h
