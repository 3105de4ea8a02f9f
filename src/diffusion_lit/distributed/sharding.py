"""Parameters that are shared out over processes (FSDP2), and a process's own part of them."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["local", "own_parameters", "reshard", "shard", "shard_like", "trained_parameters", "unsharded"]


def shard(parts: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Share out the parameters of each part, of inner parts first; those without any are left out."""
    for part in parts:
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh)


def reshard(module: nn.Module) -> None:
    """Let go of what a forward without gradients leaves gathered, so that a module's parameters are shards again."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name; of a sharded module this process's shards."""
    reshard(module)
    return dict(module.named_parameters())


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """As `own_parameters`, those that are trained: others, such as random frequencies, are as they were drawn."""
    return {name: p for name, p in own_parameters(module).items() if p.requires_grad}


def local(w: Tensor) -> Tensor:
    """This process's part of `w`, with which it shares its memory: some of its rows if it is sharded, else all."""
    return w.to_local() if isinstance(w, DTensor) else w


def shard_like(w: Tensor, p: Tensor) -> Tensor:
    """`w` on the device of `p`, and sharded as `p` is."""
    w = w.to(p.device)
    if isinstance(p, DTensor) and not isinstance(w, DTensor):
        return distribute_tensor(w, p.device_mesh, p.placements)
    return w


def unsharded(w: Tensor) -> Tensor:
    """`w`, gathered from all processes if it is sharded."""
    return w.full_tensor() if isinstance(w, DTensor) else w
