"""The magnitude-preserving U-Net of EDM2."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.model.base import Network
from diffusion_lit.model.edm2_block import MPBlock
from diffusion_lit.model.level import check_counts, check_halvings, widths_of
from diffusion_lit.model.magnitude import MPConv, MPFourier, MPLinear, mp_cat, mp_silu, mp_sum
from diffusion_lit.resolution import height_and_width

__all__ = ["EDM2UNet"]


class EDM2UNet(Network):
    """A U-Net without biases or learned norms whose weights and activations keep their magnitude (config G of Karras
    et al. 2024, figure 21 and table 6, arXiv:2312.02696).

    Weights have rows of magnitude 1 (see `diffusion_lit.model.magnitude`). The output's gain is 0 at first, and so is
    the output. Published with schedule=edm, parameterization=edm, loss=uncertainty.

    Args:
        resolution: height and width of the images; must be divisible by 2 for each level after the first.
        image_channels: in and out: 1 or 3, or those of latents.
        channels: width of the first level, 128 for XS to 448 for XXL.
        channel_multipliers: width of each level, as multiples of `channels`; the resolution halves between levels.
        num_res_blocks: blocks on each level on the way down; one more on the way up.
        attention_resolutions: the feature maps' sizes (of an oblong one, the shorter side) at which blocks have
            self-attention. The first block of the way up always has it.
        head_channels: the size of each attention head; None takes a single head.
        dropout: probability inside blocks.
        label_balance: share of the class in its sum with the noise level, in [0, 1]; so for the following ones.
        concat_balance: share of the skip connection beside what comes from below.
        residual_balance: share of the residual branch in its sum with the main one.
        attention_balance: share of the attention in its sum with the main branch.
        clip: activations are held to [-clip, clip] after each block, as float16 needs; None disables it.
        bandwidth: of the noise level's random Fourier features: 1 for log(sigma) / 4, which schedule=edm gives, 0.001
            for the steps, or thousandths of time, of other schedules.
        num_classes: None for an unconditional network; else labels are 0..num_classes - 1, or `NO_CLASS`.
        learn_variance: twice as many channels out as in; the second half says how uncertain a reverse step is. Not
            part of what was published.

    Raises:
        ValueError: if the resolution does not fit, or an option is out of range.
    """

    def __init__(
        self,
        resolution: int | Sequence[int],
        image_channels: int,
        channels: int = 192,
        channel_multipliers: Sequence[int] = (1, 2, 3, 4),
        num_res_blocks: int = 3,
        attention_resolutions: Sequence[int] = (16, 8),
        head_channels: int | None = 64,
        dropout: float = 0.0,
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        residual_balance: float = 0.3,
        attention_balance: float = 0.3,
        clip: float | None = 256.0,
        bandwidth: float = 1.0,
        num_classes: int | None = None,
        learn_variance: bool = False,
    ) -> None:
        super().__init__()
        check_counts(num_classes, image_channels=image_channels, head_channels=head_channels)
        height, width = height_and_width(resolution, "model.resolution")
        check_halvings((height, width), len(channel_multipliers) - 1)
        widths = widths_of(channels, channel_multipliers)
        balances = (label_balance, concat_balance, residual_balance, attention_balance)
        if not all(0 <= balance <= 1 for balance in balances):
            raise ValueError(
                f"the balances of model (label, concat, residual, attention) lie in [0, 1], got {balances}"
            )
        if not 0 <= dropout < 1 or bandwidth <= 0 or (clip is not None and clip <= 0):
            raise ValueError(
                "model needs dropout in [0, 1), bandwidth over 0 and clip over 0 or null, got "
                f"dropout={dropout}, bandwidth={bandwidth} and clip={clip}"
            )

        self.image_shape = (image_channels, height, width)
        self.num_classes, self.learn_variance = num_classes, learn_variance
        self.label_balance, self.concat_balance = label_balance, concat_balance
        emb_channels = max(widths)

        def block(
            c_in: int, c_out: int, decodes: bool, attends: bool = False, resample: nn.Module | None = None
        ) -> MPBlock:
            head = (head_channels or c_out) if attends else None
            settings = (dropout, residual_balance, attention_balance, clip)
            return MPBlock(c_in, c_out, emb_channels, decodes, head, resample, *settings)

        self.features = MPFourier(widths[0], bandwidth)
        self.noise = MPLinear(widths[0], emb_channels)
        self.label = MPLinear(num_classes, emb_channels) if num_classes is not None else None
        self.first = MPConv(image_channels + 1, widths[0], 3)  # a channel of ones stands in for biases

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, skips = widths[0], [widths[0]]
        attends = [min(height, width) >> i in attention_resolutions for i in range(len(widths))]
        for i, c_out in enumerate(widths):
            if i > 0:
                self.down.append(block(c, c, decodes=False, resample=nn.AvgPool2d(2)))
                skips.append(c)
            for _ in range(num_res_blocks):
                self.down.append(block(c, c_out, decodes=False, attends=attends[i]))
                c = c_out
                skips.append(c)

        self.joins: list[bool] = []
        """Whether each block on the way up is given a skip connection."""
        for i, c_out in reversed(list(enumerate(widths))):
            if i == len(widths) - 1:
                between = [block(c, c, decodes=True, attends=True), block(c, c, decodes=True)]
            else:
                between = [block(c, c, decodes=True, resample=nn.Upsample(scale_factor=2))]
            self.up.extend(between)
            self.joins += [False] * len(between) + [True] * (num_res_blocks + 1)
            for _ in range(num_res_blocks + 1):
                self.up.append(block(c + skips.pop(), c_out, decodes=True, attends=attends[i]))
                c = c_out
        self.last = MPConv(c, 2 * image_channels if learn_variance else image_channels, 3)
        self.gain = nn.Parameter(torch.zeros(1))  # not a scalar, which FSDP2 cannot share out

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        emb = self.noise(self.features(c_noise))
        if self.label is not None:
            emb = mp_sum(emb, self.embedded(condition.label, x.shape[0]), self.label_balance)
        emb = mp_silu(emb)

        h = x.to(self.first.weight.dtype)
        h = self.first(torch.cat([h, torch.ones_like(h[:, :1])], dim=1))
        skips = [h]
        for block in self.down:
            h = block(h, emb)
            skips.append(h)
        for block, joins in zip(self.up, self.joins, strict=True):
            if joins:
                h = mp_cat(h, skips.pop(), self.concat_balance)
            h = block(h, emb)
        return self.last(h, self.gain)

    def embedded(self, label: Tensor | None, count: int) -> Tensor:
        """Of each class its column of unit magnitude, 0 for an image without one: [B, E], float32."""
        assert self.label is not None
        table = self.label.unit().t()
        if label is None:
            return table.new_zeros(count, table.shape[1])
        known = (label != NO_CLASS) & (label != len(table))
        return F.embedding(label.where(known, 0), table) * known[:, None]

    def blocks(self) -> Iterable[nn.Module]:
        return (*self.down, *self.up)

    def class_parameters(self) -> Iterable[str]:
        return () if self.label is None else ("label.weight",)
