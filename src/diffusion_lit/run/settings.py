"""What a run was asked for, what is asked of it now, and what the difference means."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import is_own
from diffusion_lit.command_line.shell import PATHS
from diffusion_lit.derived import DERIVED, leaves
from diffusion_lit.trust.destination import within_run

__all__ = ["ABANDONED", "Change", "changes", "plain_settings", "remarks"]

ARCHITECTURE = (
    *("model", "schedule", "parameterization", "loss._target_", "density._target_"),
    *("space._target_", "space.scale", "space.shift", "space.sha256"),
)
"""Settings that weights cannot outlive: by the beginning of their keys."""

ABANDONED = "abandoned"
"""The folder, in a run's, of branches that it was not continued from."""

PLACES = ("run_dir", "output_root", "resume", "init", "data.cache")
"""Settings of where one run is and comes from, and where this machine has room for what it fetches."""

UNSEEN = (
    *(*PLACES, "logger", "progress", "callback.progress", "callback.throughput", "callback.dashboard"),
    *("callback.raw_loss", "callback.update_ratio", "data.num_workers", "data.verify"),
    *("execution", "data.ahead", "objective", "allow"),
    *("trainer.default_root_dir", "trainer.log_every_n_steps"),
    *("trainer.enable", "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "trainer.strategy", "sweep"),
)
"""Settings of where a run is computed and what is written of it, which it would be foolish to compare runs by."""

SPECTATORS = (
    *("callback.fid", "callback.sample_grid", "callback.nan_guard", "callback.last_checkpoint", "callback.best"),
    *("callback.step_checkpoint", "feature", "sampler", "guidance", "trainer.val_check", "trainer.check_val"),
    *("trainer.limit_val", "trainer.num_sanity", "autoencoder", "space.autoencoder", "data.latents"),
)
"""Settings that look at training and leave it as it is. Which autoencoder it is, not where, `space.sha256` says."""

BUDGET = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_images", "trainer.max_minutes")

KEPT_STATE = (
    *("optimizer.lr", "optimizer.betas", "optimizer.eps", "optimizer.weight_decay", "optimizer.fused"),
    *("optimizer.adam_lr", "optimizer.momentum"),
)
"""Settings of an optimizer under which its state means the same."""


@dataclass(frozen=True)
class Change:
    """A setting that is not what it was."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"

    @property
    def forbidden(self) -> bool:
        """Whether the weights mean nothing under it."""
        return under(self.key, ARCHITECTURE)

    @property
    def decides(self) -> bool:
        """Whether the result of training depends on it, apart from how long it is."""
        return not under(self.key, (*UNSEEN, *SPECTATORS, *BUDGET))

    @property
    def resets_optimizer(self) -> bool:
        """Whether the optimizer's state means nothing under it."""
        return self.key.startswith("optimizer.") and not under(self.key, KEPT_STATE)

    @property
    def meaning(self) -> str:
        """What it does to a run that is resumed with it alone, and to its exactness."""
        return self.meaning_where(self.resets_optimizer)

    def meaning_where(self, resets_optimizer: bool) -> str:
        """As `meaning`, where the changes beside it say whether the optimizer's state starts anew."""
        if under(self.key, BUDGET):
            return "the same steps, unless the learning rate follows the budget"
        if not self.decides:
            return "training itself stays the same to the bit"
        if self.key.startswith("optimizer."):
            state = "starts anew" if resets_optimizer else "is kept"
            return f"from the next step on; the optimizer's state {state}"
        if self.key.startswith("callback.ema"):
            return "from the next step on; the average so far is kept"
        if self.key == "data.batch_size":
            return "from the next step on; no image of the epoch is repeated or left out"
        return "from the next step on, which is then no longer the step that the earlier run would have taken"


def remarks(found: Sequence[Change]) -> Iterator[str]:
    """What a resumed run says of its changes: each once, though parts within others repeat it, and what it means."""
    resets_optimizer = any(change.resets_optimizer for change in found)
    for change in found:
        if not any(change.key.endswith(f".{c.key}") and (c.old, c.new) == (change.old, change.new) for c in found):
            yield f"{change} ({change.meaning_where(resets_optimizer)})"


def under(key: str, beginnings: Sequence[str]) -> bool:
    return key.startswith(tuple(beginnings))


def changes(recorded: Mapping[str, Any], cfg: DictConfig) -> list[Change]:
    """What differs between the settings of a run's checkpoint and `cfg`, except what is `UNSEEN`.

    Args:
        recorded: `config`, and `started_in` where it is known.
        cfg: the settings of a run to be started here.
    """
    before = flatten(recorded["config"], recorded.get("started_in", os.getcwd()))
    after = flatten(plain_settings(cfg), os.getcwd())
    for one, other in ((before, after), (after, before)):
        one |= dict.fromkeys(callbacks_of(other) - callbacks_of(one))
        for part in [key for key, value in one.items() if value is None]:
            if within := [key for key in other if key.startswith(f"{part}.")]:  # off in the one, on in the other
                other[part] = "on"
                for key in within:
                    del other[key]
    keys = [key for key in sorted(before.keys() | after.keys()) if not under(key, (*UNSEEN, *TODAY))]
    for key in [key for key in keys if key not in before]:  # an option that there was not yet
        before[key] = default_of(cfg, key)
    return [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def callbacks_of(values: Mapping[str, Any]) -> set[str]:
    """The parts `callback.NAME` that flat settings have, switched off or not; `~callback.NAME` leaves one out."""
    return {".".join(key.split(".")[:2]) for key in values if under(key, ("callback.",))}


def default_of(cfg: DictConfig, key: str) -> Any:
    """What a class takes where the option that `key` ends with is not given; None if it has no such option."""
    group, _, name = key.rpartition(".")
    target = OmegaConf.select(cfg, f"{group}._target_") if group else None
    if not isinstance(target, str) or not is_own(target):
        return None
    parameter = inspect.signature(get_class(target)).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


RUN_DIR = "${run_dir}"
"""What stands for a run's own folder where runs are compared."""

TODAY = (*PLACES, "overrides", "progress", "trainer.accelerator", *(f"{part}." for part in DERIVED))
"""Settings that a resumed run does not inherit; its command line, `overrides`, older versions had among them."""


def flatten(config: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Every value by its dotted key, for comparison: paths are places (see `place`), a run's own within the run.

    Args:
        config: resolved, of plain containers.
        folder: the folder in which the command was run.
    """
    values, run_dir = leaves(config), config.get("run_dir")
    for key, value in values.items():
        if isinstance(value, str) and (rest := within_run(value, run_dir)) is not None:
            values[key] = RUN_DIR + rest
        elif isinstance(value, str) and key.rpartition(".")[2] in PATHS:
            values[key] = place(value, folder)
    return values


def place(text: str, folder: str | Path) -> str:
    """A path as a place: absolute and without detours. An address, or a name that is no path, stays as it is."""
    if "://" in text or not (os.sep in text or (Path(folder) / text).exists()):
        return text
    return os.path.realpath(Path(folder) / text)


def plain_settings(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration, of plain containers; what names Hydra's own state is left out."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
