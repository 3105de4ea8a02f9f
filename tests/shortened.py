"""The commands of documents as they can be run in seconds: files in the places of what stands for them, little work."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion_lit.command_line.catalogue import chosen_settings
from diffusion_lit.command_line.shell import pieces, quote
from diffusion_lit.command_line.slips import choices_in

__all__ = ["filled_in", "shortened"]

TRAIN = {
    "model.channels": "8",
    "model.channel_multipliers": "[1]",
    "model.num_res_blocks": "1",
    "model.attention_resolutions": "[]",
    "model.head_channels": "null",
    "model.num_groups": "4",
    "data.batch_size": "4",
    "data.num_workers": "0",
    "sampler.num_steps": "2",
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.max_steps": "2",
    "trainer.max_minutes": "null",
    "trainer.val_check_interval": "2",
    "trainer.limit_val_batches": "1",
    "trainer.num_sanity_val_steps": "0",
    "callback.fid.num_samples": "4",
    "callback.fid.num_steps": "null",
    "callback.sample_grid.rows": "1",
    "callback.sample_grid.columns": "2",
    "callback.power_ema.every_n_steps": "1",
    "logger.wandb.offline": "true",
    "sweep.trials": "2",
}
DIT = {"model.channels": "16", "model.depth": "1", "model.num_heads": "2"}
SAMPLE = {"num_samples": "4", "sampler.num_steps": "2"}
EVALUATE = {
    "num_samples": "40",
    "steps": "2",
    "cache": "cache",
    "feature.cache": "cache",
    "feature.num_images": "2000",
    "metrics.kid.subset_size": "10",
    "metrics.ct_score.min_generated": "2",
    "metrics.bits_per_dim.num_images": "2",
    "metrics.bits_per_dim.rtol": "1e-2",
    "metrics.bits_per_dim.atol": "1e-2",
    "metrics.bound.num_images": "2",
    "metrics.bound.num_steps": "4",
}
SHORT: Mapping[str, Mapping[str, str]] = {
    "train": TRAIN,
    "sample": SAMPLE,
    "evaluate": EVALUATE,
    "export": {"num_steps": "2"},
}
"""Settings that are added to what is shown, of those that a command has."""
PROCESSES = {"trainer.devices": "2", "trainer.num_nodes": "1", "devices": "2", "workers": "2"}
"""In place of what is shown."""


def filled_in(argument: str, places: Mapping[str, Path]) -> str:
    """An argument with files, by `places`, where its value or an item of it stands for one."""
    key, mark, value = argument.rpartition("=") if argument.startswith("+") else argument.partition("=")
    if value.startswith("[") and any(piece in places for piece in pieces(value[1:-1])):
        return f"{key}=[{','.join(quote(str(places.get(piece, piece)), always=True) for piece in pieces(value[1:-1]))}]"
    return f"{key}{mark}{places.get(value, value)}" if mark else str(places.get(argument, argument))


def shortened(name: str, arguments: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """The arguments of a command, files in place of what stands for them, and then what makes it short."""
    given = [filled_in(argument, places) for argument in arguments]
    if name not in SHORT or "--help" in arguments or arguments[:1] == ["compare"]:
        return [*given, *few_processes(arguments)]
    typed = dict(argument.partition("=")[::2] for argument in arguments)
    if "resume" in typed and typed["resume"] != "auto":
        return [*given, "trainer.max_steps=4"]
    known = chosen_settings(name, choices_in(arguments))
    short = {key: value for key, value in SHORT[name].items() if key in known}
    if "model.depth" in known:
        short |= DIT
    if "data.download" in known:
        short |= {"data.root": str(places["TORCHVISION"]), "data.download": "false"}
    metrics = set(pieces(typed.get("metrics", "").strip("[]")))
    if "indices" in typed:
        del short["num_samples"]
    likelihoods = bool(metrics) and metrics <= {"bits_per_dim", "bound"}
    if "samples" in typed or likelihoods:  # nothing is drawn
        del short["num_samples"], short["steps"]
    if "class_histogram" in metrics:
        short["feature"] = "classifier"
    if "init" in typed:  # which has the network's size
        short = {key: value for key, value in short.items() if not key.startswith("model.")}
    if typed.get("data.resolution") in ("64", "128"):
        short["data.resolution"] = "32"
    if "callback.best_checkpoint.monitor" in typed:  # whose name has their number
        del short["callback.fid.num_samples"]
    if typed.get("steps", "").startswith("["):
        del short["steps"]
    if name == "export" and "num_steps" not in typed:
        short = {}
    if "callback.fid.kid.subset_size" in typed:
        short["callback.fid.kid.subset_size"] = "10"
    if name in ("train", "evaluate") and "feature" not in typed | short and not likelihoods:
        short["feature"] = "pixels"
    return [*given, *(f"{key}={value}" for key, value in short.items()), *few_processes(arguments)]


def few_processes(arguments: Sequence[str]) -> list[str]:
    """Two processes, where several are shown."""
    pairs = [argument.partition("=") for argument in arguments]
    several = [key for key, _, value in pairs if key in PROCESSES and value not in ("0", "1")]
    return [f"{key}={PROCESSES[key]}" for key in several]
