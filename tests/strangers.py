"""Files that a stranger might send: what they try leaves a mark if it is run."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.launch import config

SECRET = "STRANGER_SECRET"
"""A variable of the environment that no file may read."""


class Touch:
    """Unpickled, it makes an empty file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def payloads(folder: Path, mark: Path) -> dict[str, dict[str, Any]]:
    """Settings that make the file `mark`, by what they use; some of them need files in `folder`."""
    pickled = folder / "pickled"
    pickled.write_bytes(pickle.dumps(Touch(mark)))
    (folder / "hubconf.py").write_text(f"def anything():\n    open({str(mark)!r}, 'w')\n")
    (folder / "stranger.py").write_text(f"open({str(mark)!r}, 'w')\nclass Network:\n    pass\n")
    shell = f"touch {mark}"
    path = {"_target_": "pathlib.Path", "_args_": [str(mark)]}
    return {
        "os.system": {"_target_": "os.system", "_args_": [shell]},
        "posix.system": {"_target_": "posix.system", "_args_": [shell]},
        "subprocess": {"_target_": "subprocess.run", "args": ["touch", str(mark)]},
        "exec": {"_target_": "builtins.exec", "_args_": [f"open({str(mark)!r}, 'w')"]},
        "pathlib": {"_target_": "pathlib.Path.write_text", "_args_": [path, "written"]},
        "pathlib.touch": {"_target_": "pathlib.Path.touch", "_args_": [path]},
        "numpy.load": {"_target_": "numpy.load", "file": str(pickled), "allow_pickle": True},
        "torch.load": {"_target_": "torch.load", "f": str(pickled), "weights_only": False},
        "torch.hub": {
            "_target_": "torch.hub.load",
            "repo_or_dir": str(folder),
            "model": "anything",
            "source": "local",
        },
        "import": {"_target_": "stranger.Network"},
        "through our module": {"_target_": "diffusion_lit.command_line.command.os.system", "_args_": [shell]},
        "our function": {
            "_target_": "diffusion_lit.picture.image.save_npz",
            "images": {"_target_": "torch.zeros", "_args_": [1, 3, 2, 2]},
            "labels": None,
            "path": path,
        },
    }


def run(node: Any) -> Any:
    """What Hydra does with settings where nothing stops it: 1.3.2 has no list of what it refuses."""
    if not isinstance(node, dict):
        return node
    arguments = {key: run(value) for key, value in node.items() if key not in ("_target_", "_args_")}
    function: Any = locate(node["_target_"])
    return function(*map(run, node.get("_args_", ())), **arguments)


def checkpoint(*overrides: str) -> dict[str, Any]:
    """A checkpoint as training writes it, of a small model with random weights."""
    data = ("model.resolution=8", "model.image_channels=1", "model.num_classes=10", "model.augmentation_dim=0")
    cfg = config(Path("run"), *data, "space={_target_: diffusion_lit.space.PixelSpace}", *overrides)
    torch.manual_seed(0)
    state = {f"denoiser.{name}": w for name, w in instantiate(cfg.denoiser).state_dict().items()}
    recorded = OmegaConf.to_container(cfg, resolve=True)
    names = [str(i) for i in range(10)]
    return {"config": recorded, "class_names": names, "state_dict": state, "ema": state, "global_step": 3}


def changed(values: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """A copy with another value at a dotted key, in which numbers count a list's items."""
    values = copy.deepcopy(values)
    *path, last = key.split(".")
    node: Any = values
    for name in path:
        node = node[int(name) if isinstance(node, list) else name]
    node[int(last) if isinstance(node, list) else last] = value
    return values


def saved(value: object) -> bytes:
    """As `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
