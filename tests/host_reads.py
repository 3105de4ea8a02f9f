"""A device that is not there: what a GPU's host would wait for, found on a machine without one.

Tensors of a module and of a batch count as the device's, and so does what is computed of them or made with `device=`;
others, such as an optimizer's count of steps, are the host's. Whatever needs a number of the device's on the host is an
error: `item`, `float`, `if`, `tolist`, `cpu`, `equal`, `nonzero`, boolean masks. So is a tensor that the host makes
on the device from numbers of its own, for which a GPU's host waits likewise.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["HostReadError", "SimulatedDevice"]

READS = ("tolist", "numpy", "cpu", "__array__", "__repr__", "__format__")
"""Methods that read a CPU's tensor without any operation that could be seen."""
UPLOADS = ("tensor", "as_tensor")
aten = torch.ops.aten


class HostReadError(AssertionError):
    """The host waits for the device."""


class SimulatedDevice(TorchDispatchMode):
    """Within it, and while it is `watching`, whatever makes the host wait raises a `HostReadError`."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()
        self.watching = True

    def put(self, tensors: Iterable[object]) -> None:
        """Count tensors as the device's."""
        self.storages |= {address(t) for t in tensors if isinstance(t, Tensor)}

    def has(self, t: object) -> bool:
        return isinstance(t, Tensor) and address(t) in self.storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(map(self.has, inputs))
        if self.watching and on_device and waits(func, args):
            raise HostReadError(f"{func} of what is on the device")
        outputs = func(*args, **(kwargs or {}))
        addresses = {address(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)}
        if on_device:
            self.storages |= addresses
        elif not any(t is output for t in inputs for output in tree_leaves(outputs)):
            self.storages -= addresses  # memory that was the device's before
        return outputs

    @contextmanager
    def entered(self) -> Iterator["SimulatedDevice"]:
        with self, Calls(self):
            yield self


class Calls(TorchFunctionMode):
    """What is not an operation by the time that it is dispatched."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        device = self.device
        if device.watching and name in READS and device.has(args[0]):
            raise HostReadError(f"{name}() of what is on the device")
        given = kwargs.get("device") not in (None, "cpu")  # a module's device is not a string
        if device.watching and given and name in UPLOADS and not device.has(args[0]):
            raise HostReadError(f"{name}({args[0]!r}, device=...), which the host waits for")
        outputs = func(*args, **kwargs)
        if name == "cpu":
            outputs = outputs.clone()  # as it would be from a device
        if given:
            device.put(tree_leaves(outputs))
        elif name in (*UPLOADS, "cpu"):
            device.storages.discard(address(outputs))
        return outputs


def waits(func: Any, args: Any) -> bool:
    """Whether an operation gives the host a number, or an output whose size is one."""
    if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def address(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()
