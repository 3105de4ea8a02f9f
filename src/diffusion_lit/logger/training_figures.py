"""What is known of the training steps since figures were last logged."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.distributed.collective import gathered, rank_and_size
from diffusion_lit.loss import LossTerms
from diffusion_lit.noise_level import NoiseLevels, means_by_level
from diffusion_lit.schedule import Schedule

__all__ = ["TrainingFigures"]


class TrainingFigures:
    """Means over all steps since the newest point of a curve, over all ranks, not of whichever step falls on the point.

    What steps add stays on the device, so that no step makes the host wait for it.

    Args:
        schedule: what the times of losses are times of.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.levels = NoiseLevels(schedule)
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor) -> None:
        earlier = self.sums.get(name)
        self.sums[name] = values if earlier is None else earlier.to(values.device) + values

    def add_losses(self, terms: LossTerms) -> None:
        """Take in the losses of a batch."""
        self.add("loss", self.levels.sums(terms.loss.detach(), terms.t))
        for name, part in terms.parts.items():
            self.add(f"part {name}", part.detach().float().sum())

    def add_gradient(self, norm: Tensor, limit: float | None) -> None:
        """Take in the norm of a step's gradient before clipping.

        Args:
            norm: a scalar, the same on all ranks.
            limit: the norm that gradients are clipped to; None where they are not.
        """
        finite = norm.isfinite()
        self.add("gradient", torch.stack([torch.where(finite, norm, 0), finite, ~finite]).float())
        if limit is not None:
            self.add("clipped", ((norm > limit) & finite).float())

    def read(self, device: torch.device) -> dict[str, float]:
        """The figures by name; the next begin anew. All ranks call this together, with the `device` they talk through.

        `loss` and `loss_LEVEL` are means over images, and so is each part of a loss that has several; `grad_norm` is
        that of finite gradients, `clipped` the share of them that was clipped, and `not_finite` the number of the
        others.
        """
        if not self.sums:
            return {}
        sums, self.sums = {name: rows.sum(0) for name, rows in self.gather(device).items()}, {}
        figures = means_by_level(sums["loss"])
        parts = {name.removeprefix("part "): total for name, total in sums.items() if name.startswith("part ")}
        figures |= {name: total / sums["loss"][1].sum() for name, total in parts.items()}
        if "gradient" in sums:
            norm, finite, others = sums["gradient"]
            if finite > 0:
                figures["grad_norm"] = norm / finite
                figures |= {"clipped": sums["clipped"] / finite} if "clipped" in sums else {}
            figures["not_finite"] = others / rank_and_size()[1]
        return {name: float(figure) for name, figure in figures.items()}

    def gather(self, device: torch.device) -> dict[str, Tensor]:
        """The sums of all ranks [W, ...], in float64 and on the host, which a device is asked for once."""
        own = torch.cat([values.reshape(-1) for values in self.sums.values()])
        rows = gathered(own[None].to(device)).cpu().double()
        parts = torch.split(rows, [values.numel() for values in self.sums.values()], dim=1)
        pairs = zip(self.sums.items(), parts, strict=True)
        return {name: part.reshape(-1, *values.shape) for (name, values), part in pairs}

    def state_dict(self, device: torch.device) -> dict[str, Any]:
        """What a checkpoint keeps, the same on all ranks, which call this together."""
        return {} if not self.sums else {name: rows.float() for name, rows in self.gather(device).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take each rank's own sums back; of another number of ranks the first one takes all."""
        rank, size = rank_and_size()
        alike = all(len(rows) == size for rows in state.values())
        self.sums = {name: rows[rank].clone() if alike else rows.sum(0) * (rank == 0) for name, rows in state.items()}
