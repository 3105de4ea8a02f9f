"""Muon: orthogonal steps for the matrices within a network, AdamW's for everything else."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from diffusion_lit.optimizer.orthogonal import orthogonal

__all__ = ["Muon"]


class Muon(Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    Its weight decay is that of Liu et al. 2025, arXiv:2502.16982.

    With a matrix's gradient G and momentum M,

        M <- momentum M + (1 - momentum) G
        W <- (1 - lr weight_decay) W - lr max(1, rows / columns)^(1/2) orthogonal(momentum M + (1 - momentum) G)

    so that every direction is learned at one rate, however small its gradient. The kernel of a convolution, [C_out,
    C_in, height, width], is a matrix of C_out rows. What is not a matrix of features by features (biases, norms,
    embeddings, the first and the last layer) is AdamW's, in a group of its own: both follow the learning-rate schedule.

    Args:
        params: all that is trained.
        matrices: those of `params` that get orthogonal steps; `Network.matrices` says which they are.
        lr: of the matrices; 0.02 is usual, and depends little on the network's width.
        adam_lr: of everything else.
        momentum: of the matrices.
        betas, eps: AdamW's.
        weight_decay: of all, each times its own rate.

    Raises:
        ValueError: if a setting is out of range, there are no matrices, or they are shared out over processes (FSDP).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        matrices: Iterable[nn.Parameter],
        lr: float = 0.02,
        adam_lr: float = 1e-3,
        momentum: float = 0.95,
        betas: Sequence[float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        settings = {"lr": lr, "adam_lr": adam_lr, "eps": eps, "weight_decay": weight_decay}
        for name, value in settings.items():
            if not value >= 0:
                raise ValueError(f"optimizer.{name} must be at least 0, got {value}")
        if not 0 <= momentum < 1 or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"optimizer.momentum and both of optimizer.betas must lie in [0, 1), got momentum={momentum} and "
                f"betas={list(betas)}"
            )
        inside = list(matrices)
        if not inside:
            raise ValueError(
                "optimizer=muon finds no matrices in the network, which has none in its blocks() and says of no others "
                "by matrices(): use optimizer=adamw"
            )
        if any(isinstance(p, DTensor) for p in inside):
            raise ValueError(
                "optimizer=muon needs whole matrices, and with strategy=fsdp or hsdp a process has some rows of each: "
                "use strategy=ddp, or optimizer=adamw"
            )
        apart = {id(p) for p in inside}
        rest = [p for p in params if id(p) not in apart]
        decay = {"weight_decay": weight_decay}
        groups: list[dict[str, Any]] = [
            {"params": inside, "lr": lr, "momentum": momentum, **decay},
            {"params": rest, "lr": adam_lr, "betas": list(betas), "eps": eps, "fused": True, **decay},
        ]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, rest = self.param_groups
        by_shape = defaultdict(list)
        for p in learned(matrices):
            by_shape[p.flatten(1).shape].append(p)
        for alike in by_shape.values():
            self.step_orthogonally(alike, matrices)
        self.step_by_adam(learned(rest), rest)
        return loss

    def step_orthogonally(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """A step of matrices of one shape, all at once."""
        grads = gradients(weights)
        momenta = [self.moment(p, "momentum_buffer") for p in weights]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov's
        steps = orthogonal(torch.stack([m.flatten(1) for m in ahead]))
        rows, columns = steps.shape[1:]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_add_(weights, [s.view_as(p) for s, p in zip(steps, weights, strict=True)], alpha=-rate)

    def step_by_adam(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for p in weights:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        adamw(
            weights,
            gradients(weights),
            [self.moment(p, "exp_avg") for p in weights],
            [self.moment(p, "exp_avg_sq") for p in weights],
            [],
            [self.state[p]["step"] for p in weights],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def moment(self, p: Tensor, name: str) -> Tensor:
        """A running mean of the gradient, or of its square, zeros at first."""
        if name not in self.state[p]:
            self.state[p][name] = torch.zeros_like(p)
        return self.state[p][name]


def learned(group: dict[str, Any]) -> list[Tensor]:
    """The parameters that have a gradient; others stay as they are."""
    return [p for p in group["params"] if p.grad is not None]


def gradients(weights: list[Tensor]) -> list[Tensor]:
    """Those of parameters that have one."""
    return [p.grad for p in weights if p.grad is not None]
