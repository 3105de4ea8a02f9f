"""Guidance: away from what a worse model predicts, with the denoiser's own call."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import BaseDenoiser, Prediction

__all__ = ["GuidedDenoiser", "guided"]


class GuidedDenoiser(BaseDenoiser):
    """x_0 = x_0(worse) + guidance (x_0(better) - x_0(worse)), and so, each being linear in x_0, for eps, v and score.

    1 is the model itself. The worse one is the model without the label (classifier-free guidance in one batched call,
    Ho & Salimans 2022, eq. 6, arXiv:2207.12598, whose w is `guidance` - 1), or a smaller or less trained model with it
    (autoguidance, Karras et al. 2024, arXiv:2406.02507).

    Args:
        denoiser: the model; without `guide`, one whose label was sometimes dropped in training.
        guidance: the scale; 1.5 to 4 is usual.
        guide: the worse model; None takes the model without the label.
        interval: (low, high] in sigma / alpha: guidance only where the noise is between them (Kynkaanniemi et al. 2024,
            arXiv:2404.07724); None guides everywhere.

    Raises:
        ValueError: if `guidance` is negative, the interval is not one, there is no guide and the model has no classes
            or cannot do without one, or the guide is of other images, another schedule or other classes.
    """

    def __init__(
        self,
        denoiser: BaseDenoiser,
        guidance: float,
        guide: BaseDenoiser | None = None,
        interval: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not guidance >= 0:  # nor NaN
            raise ValueError(f"guidance must not be negative, got {guidance}; 1 does not guide, 1.5 to 4 is usual")
        if guide is None and denoiser.num_classes is None:
            raise ValueError(
                f"guidance={guidance} needs a class-conditional model, this one has no classes; use guidance=1, or "
                "give a second model as guide"
            )
        if guide is None and not denoiser.null_class:
            raise ValueError(
                f"guidance={guidance} compares the model with itself without a class, which this one was not built for "
                "(model.null_class=false); use guidance=1, or give a second model as guide"
            )
        if interval is not None and (len(interval) != 2 or not 0 <= interval[0] < interval[1]):
            raise ValueError(
                f"guidance_interval must be [low, high] with 0 <= low < high, in sigma / alpha; got {list(interval)}"
            )
        if guide is not None:
            check_guide(denoiser, guide)
        self.schedule, self.space, self.image_shape = denoiser.schedule, denoiser.space, denoiser.image_shape
        self.num_classes, self.null_class = denoiser.num_classes, denoiser.null_class
        self.learns_variance = denoiser.learns_variance
        self.denoiser, self.guidance, self.guide, self.interval = denoiser, guidance, guide, interval

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        """As `Denoiser`; without a guide, a ValueError if the condition is empty."""
        if self.guide is None and condition.is_empty:
            raise ValueError("guidance pushes towards a class: give labels, or use guidance=1 without them")
        guidance: Tensor | float = self.guidance
        if self.interval is not None:
            noise = (-self.schedule.log_snr(t) / 2).exp()
            inside = (noise > self.interval[0]) & (noise <= self.interval[1])
            if not inside.any():
                return self.denoiser(x_t, t, condition)
            guidance = torch.where(inside, x_t.new_tensor(self.guidance), x_t.new_ones(()))
        better, worse = self.compare(x_t, t, condition)
        return replace(
            better,
            x_0=torch.lerp(worse.x_0, better.x_0, guidance),  # exactly the better one where guidance is 1
            output=torch.lerp(worse.output, better.output, guidance),
        )

    def compare(self, x_t: Tensor, t: Tensor, condition: Condition) -> Sequence[Prediction]:
        """What the better and the worse model make of `x_t`."""
        if self.guide is not None:
            return self.denoiser(x_t, t, condition), self.guide(x_t, t, condition)
        both = Condition.cat([condition, condition.null()])
        return self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)


def guided(
    denoiser: BaseDenoiser, guidance: float, guide: BaseDenoiser | None = None, interval: Sequence[float] | None = None
) -> BaseDenoiser:
    """`denoiser` with guidance (see `GuidedDenoiser`); itself where `guidance` is 1. A ValueError if that cannot be."""
    if guidance != 1:
        return GuidedDenoiser(denoiser, guidance, guide, interval)
    if guide is not None or interval is not None:
        raise ValueError("guidance=1 does not guide: a guide or guidance_interval takes effect with guidance=2, say")
    return denoiser


def check_guide(denoiser: BaseDenoiser, guide: BaseDenoiser) -> None:
    """Raise a ValueError unless a guide knows the same images, times and classes."""
    t = torch.linspace(0, 1, 1001)
    own, other = denoiser.schedule, guide.schedule
    same = {
        "image shape": denoiser.image_shape == guide.image_shape,
        "number of classes": denoiser.num_classes == guide.num_classes,
        "space": denoiser.space == guide.space,
        "schedule": torch.equal(own.alpha(t), other.alpha(t)) and torch.equal(own.sigma(t), other.sigma(t)),
    }
    if different := [name for name, equal in same.items() if not equal]:
        raise ValueError(f"the guide has another {' and another '.join(different)} than the model it is to guide")
