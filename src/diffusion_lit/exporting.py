"""One `export` from its configuration to its folder: a model is loaded, written, checked and described."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from diffusion_lit.checkpoint import find_checkpoint, load_denoiser
from diffusion_lit.command_line.shell import command_line, key_of
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.folder import check_place, made_whole
from diffusion_lit.deployment.graph import GraphDenoiser
from diffusion_lit.deployment.graph_file import require_onnx, write_onnx, write_torch_export
from diffusion_lit.deployment.hub import check_push, push
from diffusion_lit.deployment.usage import default_steps, reading, settings_for
from diffusion_lit.derived import denoiser_settings
from diffusion_lit.environment import versions
from diffusion_lit.interop import diffusers_writer, own
from diffusion_lit.interop.foreign import Foreign
from diffusion_lit.model_card import Card, check_license, find_evaluation, model_card
from diffusion_lit.provenance import repeat_command
from diffusion_lit.schedule import DiscreteSchedule, Schedule
from diffusion_lit.space import relocate
from diffusion_lit.terminal.interruption import CommandInterrupted, Interrupted, Interruption
from diffusion_lit.terminal.progress import progress
from diffusion_lit.trust.gate import trusted
from diffusion_lit.trust.plain import read_as

__all__ = ["FORMATS", "export"]

FORMATS = ("safetensors", "diffusers", "onnx", "torch_export")
OF_GRAPHS = ("onnx", "torch_export")
CARD = "README.md"


@dataclass(frozen=True)
class Export:
    """A model in a format, all of it known before a file is written."""

    write: Callable[[Path], float | None]
    """Writes the files into a folder; returns the largest difference to the model where it was run beside it."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What the format's files cannot say."""
    has_pipeline: bool = False


def export(cfg: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Write what `cfg` (conf/export.yaml) asks for into the folder `cfg.out`, which is then whole.

    Everything that is missing or does not fit is found before the first file is written.

    Args:
        cfg: the settings.
        overrides: the command line that they come from.

    Returns:
        The folder.

    Raises:
        Interrupted: if the process was asked to stop; nothing is written then.
        ValueError: if a setting is wrong, or the format cannot express the model.
        FileNotFoundError: if there is no such checkpoint or evaluation.
    """
    out = Path(os.path.normpath(Path(cfg.out).expanduser()))
    check_settings(cfg, overrides)
    check_place(out, cfg.overwrite)
    with Interruption() as interruption:
        interruption.started = True  # signals are answered wherever the work is
        try:
            denoiser, checkpoint = load_denoiser(cfg.ckpt, cfg.weights, "cpu", cfg.autoencoder, cfg.allow)
            model = described(cfg, denoiser, checkpoint)
            evaluation = find_evaluation(cfg.ckpt, find_checkpoint(cfg.ckpt), cfg.weights, cfg.evaluation)
            read, clip = reading(model.weights_name, cfg.allow), clip_of(cfg, denoiser, model)
            chosen = prepared(cfg, denoiser, model, clip)
            card = Card(
                *(model, denoiser, checkpoint["config"], cfg.format, cfg.license, evaluation),
                *(chosen.has_pipeline, cfg.push_to or ".", cfg.push_to is not None, read, clip),
            )
            record = {**own.record_of(model, versions()), "exported_as": cfg.format, **chosen.record}
            with progress("exporting", None, delay=2.0), made_whole(out, record) as folder:
                (folder / CARD).write_text(model_card(card))
                difference = chosen.write(folder)
        except Interrupted as stop:
            again = repeat_command("export", cfg, overrides)
            raise CommandInterrupted(stop.number, f"nothing was written to {out}", again) from None
    print(out if difference is None else f"{out}: run beside the model, they differ by at most {difference:.1g}")
    if cfg.format not in OF_GRAPHS:
        settings = settings_for(denoiser, read, clip)
        print(f"\nDraw from it:\n  {command_line('sample', {'ckpt': out.resolve(), **settings})}")
    if cfg.push_to is not None:
        print(push(out, cfg.push_to, cfg.private))
    return out


def check_settings(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise a ValueError if a setting is wrong, or would be ignored."""
    if cfg.format not in FORMATS:
        raise ValueError(f"format={cfg.format} is none of {', '.join(FORMATS)}")
    given = {key_of(override) for override in overrides}
    if "num_steps" in given and cfg.format not in OF_GRAPHS:
        raise ValueError(
            f"num_steps={cfg.num_steps} would be ignored: format={cfg.format} carries no sampling steps; leave it out"
        )
    if "private" in given and cfg.push_to is None:
        raise ValueError(f"private={cfg.private} would be ignored without push_to=OWNER/NAME: leave it out")
    check_license(cfg.license)
    check_push(cfg.push_to)
    if cfg.format == "onnx":
        require_onnx()


def described(cfg: DictConfig, denoiser: Denoiser, checkpoint: Mapping[str, Any]) -> Foreign:
    """The model with all that describes it."""
    settings = dict(denoiser_settings(checkpoint["config"]))
    settings["space"] = relocate(settings["space"], cfg.autoencoder)
    sampler = checkpoint["config"].get("sampler") or {}
    return Foreign(
        "an exported model",
        settings,
        {name: weight for name, weight in denoiser.state_dict().items()},
        None if "unnamed" in checkpoint else cfg.weights,
        checkpoint.get("class_names"),
        checkpoint.get("class_counts"),
        int(checkpoint.get("global_step", 0)),
        str(checkpoint["config"].get("trainer", {}).get("precision", "32-true")),  # or a number, Lightning's older name
        sampler={key: value for key, value in sampler.items() if key in ("variance", "clip")},
    )


def clip_of(cfg: DictConfig, denoiser: Denoiser, model: Foreign) -> float | None:
    """The largest |x_0| when its images are drawn, or None: latents may lie anywhere."""
    limit: float | None = read_as(float | None, model.sampler.get("clip", 1.0), f"{cfg.ckpt}: sampler.clip")
    return limit if denoiser.space.bounded else None


def prepared(cfg: DictConfig, denoiser: Denoiser, model: Foreign, clip: float | None) -> Export:
    """The model in the format that was chosen.

    Raises:
        ValueError: if the format cannot express it.
    """
    if cfg.format == "safetensors":
        return Export(partial(own.write, model, versions()))
    if cfg.format == "diffusers":
        variance = model.sampler.get("variance", "small")
        betas = betas_of(denoiser.schedule, model, cfg)
        written = diffusers_writer.DiffusersModel(model, betas, variance, clip)
        return Export(partial(diffusers_writer.write, written), written.note, written.has_pipeline)
    graph = GraphDenoiser(denoiser)
    num_steps = default_steps(denoiser) if cfg.num_steps is None else cfg.num_steps
    known = graph.described(num_steps) | {"class_names": model.class_names, "step": model.step}
    known |= {"weights": model.weights_name, "denoiser": dict(model.denoiser)}
    return Export(partial(write_onnx if cfg.format == "onnx" else write_torch_export, graph, known))


def betas_of(schedule: Schedule, model: Foreign, cfg: DictConfig) -> list[float] | None:
    """The betas of a chain, before its end is made noise; None of a continuous schedule."""
    if not isinstance(schedule, DiscreteSchedule):
        return None
    if schedule.ends_in_noise:
        settings = {**model.denoiser["schedule"], "zero_terminal_snr": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that such a chain ends far from noise
            chain: DiscreteSchedule = instantiate(trusted(settings, DiscreteSchedule, str(cfg.ckpt), cfg.allow))
    else:
        chain = schedule
    betas: list[float] = chain.betas.tolist()
    return betas
