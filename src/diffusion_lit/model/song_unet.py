"""DDPM++ and NCSN++, the U-Nets of Song et al., as EDM trains them."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from diffusion_lit.condition import Condition
from diffusion_lit.model.base import Network
from diffusion_lit.model.level import check_counts, check_halvings
from diffusion_lit.model.song_block import (
    NEARLY_ZERO,
    ROOT_HALF,
    FourierEmbedding,
    PositionalEmbedding,
    PyramidInput,
    ScaledAttention,
    SongBlock,
    conv,
    downsample,
    group_norm,
    linear,
    upsample,
)
from diffusion_lit.resolution import height_and_width


class SongUNet(Network):
    """DDPM++, with the defaults, and NCSN++ (Song et al. 2021, appendix H; Karras et al. 2022, appendix F and table 7).

    Beside DDPM's U-Net: sums of branches are scaled by sqrt(1/2); blocks resample; on the way up attention follows only
    the last block of a level; class and augment label join the noise level's embedding before its layers.
    arXiv:2011.13456, arXiv:2206.00364.

    NCSN++ has `noise_embedding=fourier`, `resample_filter=[1,3,3,1]` and `pyramid=true`.

    Args:
        resolution: height and width of the images, or one number for both; divisible by 2 for each level after the
            first.
        image_channels: in and out: 1 or 3, or those of latents.
        channels: width of the first level.
        channel_multipliers: width of each level, as multiples of `channels`; the resolution halves between levels.
        num_res_blocks: residual blocks on each level on the way down; one more on the way up.
        attention_resolutions: the levels that have self-attention, by the shorter side of their feature maps. The
            middle always has it.
        head_channels: the size of each attention head; None takes a single head.
        num_groups: groups of each GroupNorm, at most; a group has at least four channels.
        dropout: probability inside residual blocks.
        noise_embedding: of c_noise: `positional`, `channels` sines and cosines of fixed frequencies, or `fourier`,
            twice as many of random ones.
        resample_filter: the weights of neighbouring pixels, along each axis, where the resolution changes.
        pyramid: each level of the way down is also fed with the level above (the second with the image), past its
            blocks.
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
        channel_multipliers: Sequence[int] = (2, 2, 2),
        num_res_blocks: int = 4,
        attention_resolutions: Sequence[int] = (16,),
        head_channels: int | None = None,
        num_groups: int = 32,
        dropout: float = 0.0,
        noise_embedding: str = "positional",
        resample_filter: Sequence[float] = (1, 1),
        pyramid: bool = False,
        num_classes: int | None = None,
        augmentation_dim: int = 0,
        learn_variance: bool = False,
    ) -> None:
        super().__init__()
        counts = {"image_channels": image_channels, "channels": channels, "num_res_blocks": num_res_blocks}
        check_counts(num_classes, head_channels=head_channels, **counts)
        height, width = height_and_width(resolution, "model.resolution")
        check_halvings((height, width), len(channel_multipliers) - 1)
        if noise_embedding not in ("positional", "fourier"):
            raise ValueError(f"noise_embedding must be positional or fourier, got {noise_embedding!r}")
        self.image_shape = (image_channels, height, width)
        self.num_classes, self.augmentation_dim, self.learn_variance = num_classes, augmentation_dim, learn_variance
        emb_channels, widths = 4 * channels, [channels * multiplier for multiplier in channel_multipliers]
        attends_at = [min(height, width) >> i in attention_resolutions for i in range(len(widths))]

        def block(c_in: int, c_out: int, attends: bool = False, resample: nn.Module | None = None) -> SongBlock:
            attention = ScaledAttention(c_out, num_groups, head_channels) if attends else None
            return SongBlock(c_in, c_out, emb_channels, num_groups, dropout, resample, attention)

        fourier = noise_embedding == "fourier"
        noise_channels = 2 * channels if fourier else channels
        self.noise = FourierEmbedding(noise_channels) if fourier else PositionalEmbedding(noise_channels)
        self.label = linear(num_classes, noise_channels) if num_classes is not None else None
        # without a bias, and so without effect on an image left as it is
        self.augmentation = linear(augmentation_dim, noise_channels, bias=False) if augmentation_dim else None
        self.embedding = nn.Sequential(
            linear(noise_channels, emb_channels), nn.SiLU(), linear(emb_channels, emb_channels)
        )
        self.first = conv(image_channels, channels, 3)

        self.reduce, self.pyramid, self.down = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        c, c_above, skips = channels, image_channels, [channels]
        for i, (c_out, attends) in enumerate(zip(widths, attends_at, strict=True)):
            if i > 0:
                self.reduce.append(block(c, c, resample=downsample(resample_filter)))
                if pyramid:
                    self.pyramid.append(PyramidInput(c_above, c, resample_filter))
                    c_above = c
                skips.append(c)
            ins = [c, *[c_out] * num_res_blocks][:-1]
            self.down.append(nn.ModuleList(block(c_in, c_out, attends) for c_in in ins))
            c = c_out
            skips += [c] * num_res_blocks

        self.middle = nn.ModuleList([block(c, c, attends=True), block(c, c)])

        self.up, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for i, (c_out, attends) in reversed(list(enumerate(zip(widths, attends_at, strict=True)))):
            *before, last = (c_in + skips.pop() for c_in in [c, *[c_out] * num_res_blocks])
            self.up.append(nn.ModuleList([*(block(c_in, c_out) for c_in in before), block(last, c_out, attends)]))
            c = c_out
            if i > 0:
                self.enlarge.append(block(c, c, resample=upsample(resample_filter)))

        out_channels = 2 * image_channels if learn_variance else image_channels
        self.last = nn.Sequential(group_norm(c, num_groups), nn.SiLU(), conv(c, out_channels, 3, NEARLY_ZERO))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        emb = self.embed(c_noise, condition)
        above = x.to(self.first.weight.dtype)
        h = self.first(above)
        skips = [h]
        for i, level in enumerate(self.down):
            if i > 0:
                h = self.reduce[i - 1](h, emb)
                if self.pyramid:
                    h = above = ROOT_HALF * (h + self.pyramid[i - 1](above))
                skips.append(h)
            for block in level.children():
                h = block(h, emb)
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        for i, level in enumerate(self.up):
            if i > 0:
                h = self.enlarge[i - 1](h, emb)
            for block in level.children():
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.last(h)

    def embed(self, c_noise: Tensor, condition: Condition) -> Tensor:
        """The noise level, class and augment label as one vector, [B, 4 channels]."""
        dtype = self.first.weight.dtype
        emb = self.noise(c_noise).to(dtype)
        if self.label is not None:
            label = condition.label
            classes = torch.arange(self.label.in_features, device=emb.device)
            # an image without a class has no one in its row
            rows = emb.new_zeros(len(emb), len(classes)) if label is None else (label[:, None] == classes).to(dtype)
            emb = emb + self.label(math.sqrt(len(classes)) * rows)
        if self.augmentation is not None and condition.augment_label is not None:
            emb = emb + self.augmentation(condition.augment_label.to(dtype))
        return self.embedding(emb)

    def blocks(self) -> Iterable[nn.Module]:
        return (layer for layer in self.modules() if isinstance(layer, SongBlock))

    def class_parameters(self) -> Iterable[str]:
        return () if self.label is None else ("label.weight", "label.bias")
