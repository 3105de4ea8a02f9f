"""What was meant by a name that there is not."""

import difflib
from collections.abc import Iterable

from diffusion_lit.command_line.catalogue import CONFIG_FOLDER, chosen_settings, groups_of, member_settings, members
from diffusion_lit.command_line.described import describe
from diffusion_lit.counted import agreeing

__all__ = ["meant_key", "meant_member", "similar", "unknown_key"]

ALIASES = {
    "learning_rate": ("optimizer.lr",),
    "wd": ("optimizer.weight_decay",),
    "batch": ("data.batch_size", "batch_size"),
    "bs": ("data.batch_size", "batch_size"),
    "train_batch_size": ("data.batch_size",),
    "steps": ("trainer.max_steps", "sampler.num_steps"),
    "num_train_steps": ("trainer.max_steps",),
    "max_train_steps": ("trainer.max_steps",),
    "epochs": ("trainer.max_epochs",),
    "num_epochs": ("trainer.max_epochs",),
    "num_train_epochs": ("trainer.max_epochs",),
    "gpus": ("trainer.devices", "devices"),
    "num_gpus": ("trainer.devices", "devices"),
    "nproc": ("trainer.devices", "devices"),
    "precision": ("trainer.precision",),
    "mixed_precision": ("trainer.precision",),
    "fp16": ("trainer.precision",),
    "bf16": ("trainer.precision",),
    "grad_clip": ("trainer.gradient_clip_val",),
    "gradient_accumulation_steps": ("trainer.accumulate_grad_batches",),
    "workers": ("data.num_workers", "workers"),
    "dataset": ("data.root", "data"),
    "data_dir": ("data.root", "source"),
    "train_data_dir": ("data.root",),
    "image_size": ("data.resolution", "resolution"),
    "size": ("data.resolution", "resolution"),
    "ema_decay": ("callback.ema.decay",),
    "ema": ("callback.ema.decay", "weights"),
    "timesteps": ("schedule.num_timesteps", "sampler.num_steps"),
    "num_inference_steps": ("sampler.num_steps",),
    "noise_schedule": ("schedule",),
    "beta_schedule": ("schedule",),
    "prediction_type": ("parameterization",),
    "objective": ("parameterization",),
    "scheduler": ("sampler", "schedule"),
    "arch": ("model",),
    "checkpoint": ("ckpt", "resume"),
    "checkpoint_path": ("ckpt", "resume"),
    "model_path": ("ckpt", "init"),
    "ckpt_path": ("ckpt", "resume"),
    "run": ("ckpt",),
    "resume_from": ("resume",),
    "resume_from_checkpoint": ("resume",),
    "pretrained": ("init",),
    "output": ("out", "output_root"),
    "output_dir": ("out", "output_root"),
    "out_dir": ("out", "output_root"),
    "outdir": ("out", "output_root"),
    "out": ("output_root",),
    "n": ("num_samples",),
    "num_images": ("num_samples",),
    "n_samples": ("num_samples",),
    "cfg_scale": ("guidance",),
    "guidance_scale": ("guidance",),
    "class": ("labels",),
    "classes": ("labels",),
    "label": ("labels",),
    "wandb": ("logger",),
}
"""Settings that other tools call otherwise."""


def similar(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that look like `name`, the likeliest first."""
    return difflib.get_close_matches(name, list(dict.fromkeys(names)), cutoff=0.72)


def meant_key(command: str, key: str, choices: Iterable[tuple[str, object]] = ()) -> list[str]:
    """Settings and groups of a command that somebody who typed `key` may have meant, the likeliest first."""
    known = [name for name in chosen_settings(command, choices) if not name.rpartition(".")[2].startswith("_")]
    known = [name for name in known if not name.startswith(("module.", "denoiser."))] + list(groups_of(command))
    plain = key.lower().replace("-", "_").strip("_")
    known = [name for name in known if not plain.startswith(f"{name}.")]
    whole, _, last = plain.rpartition(".")
    aliases = [name for name in (*ALIASES.get(plain, ()), *ALIASES.get(last, ())) if name in known and name != key]
    same = [name for name in known if name.rpartition(".")[2] == last or name == plain]
    near = [name for name in known if whole and name.startswith(f"{whole}.")]
    close = [
        name
        for part in similar(last, (name.rpartition(".")[2] for name in near))
        for name in near
        if name.endswith(f".{part}")
    ]
    close += similar(plain, known)
    close += [
        name
        for part in similar(last, (name.rpartition(".")[2] for name in known))
        for name in known
        if name.rpartition(".")[2] == part
    ]
    ranked = [*aliases, *same, *close] if last in ALIASES else [*same, *close]
    return list(dict.fromkeys(ranked))[:3]


def meant_member(group: str, name: str) -> str:
    """What to choose of a group in place of `name`."""
    there = members(group)
    plain = name.removesuffix(".yaml").lower().replace("-", "_")
    close = [plain] if plain in there else similar(plain, there)
    close = close or [member for member in there if plain and (member.startswith(plain) or plain.startswith(member))]
    meant = f"did you mean {group}={close[0]}? " if close else ""
    return f"{meant}There are {', '.join(there)}"


def unknown_key(command: str, key: str, value: str | None, choices: Iterable[tuple[str, object]] = ()) -> str:
    """The message for a setting that a command does not have."""
    choices = list(choices)
    settings = chosen_settings(command, choices)
    part, _, name = key.rpartition(".")
    typed = "VALUE" if value is None else value
    target = settings.get(f"{part}._target_")
    cls = describe(str(target.value)) if target else None
    if cls is not None and name in cls.arguments:
        return f"{key} is not in the configuration, but {cls.name} takes it: put a + before it, +{key}={typed}"
    other = next(
        (other for group in groups_of(command) for other in members(group) if (group, other) == (part, name)), None
    )
    having = [
        member for member in members(part) if part in groups_of(command) and key in dict(member_settings(part, member))
    ]
    if having:
        return f"{key} is not a setting here: {agreeing([f'{part}={member}' for member in having], 'has', 'have')} it"
    if other is not None:
        return f"{key} is not a setting: choose that member with {part}={other}"
    if meant := meant_key(command, key, choices):
        listed = f"{', '.join(meant[:-1])} or {meant[-1]}" if len(meant) > 1 else meant[0]
        return f"{key} is not a setting of {command}: did you mean {listed}?"
    if (CONFIG_FOLDER / key.partition(".")[0]).is_dir() and key.partition(".")[0] not in groups_of(command):
        fixed = "the checkpoint has its own" if "ckpt" in settings else f"{command} has no such part"
        return f"{key} is not a setting of {command}: {fixed}. See python -m diffusion_lit.{command} --help"
    return f"{key} is not a setting of {command}: see python -m diffusion_lit.{command} --help and --cfg job"
