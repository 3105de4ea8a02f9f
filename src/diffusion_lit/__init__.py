"""Train, sample and evaluate image diffusion models on PyTorch Lightning and Hydra.

    import diffusion_lit as dl

    run = dl.train(["schedule=cosine", "trainer.max_steps=500"])
    images = run.model.sample(16, labels=[3, 1, 4], guidance=2)

Nothing is loaded before it is used: importing this package takes milliseconds, and no torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_lit.denoiser import Denoiser
    from diffusion_lit.library import Evaluation, Run, evaluate, export, sample, train
    from diffusion_lit.module import DiffusionModule
    from diffusion_lit.trained_model import TrainedModel, load

__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "DiffusionModule",
    "Evaluation",
    "Run",
    "TrainedModel",
    "evaluate",
    "export",
    "load",
    "sample",
    "train",
]

HOMES = {
    "Denoiser": "denoiser",
    "DiffusionModule": "module",
    "Evaluation": "library",
    "Run": "library",
    "TrainedModel": "trained_model",
    "evaluate": "library",
    "export": "library",
    "load": "trained_model",
    "sample": "library",
    "train": "library",
}
"""The modules that the names of `__all__` come from."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class Package(ModuleType):
    """Whose functions `train`, `sample` and so on stay what they are when the commands of these names load."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
