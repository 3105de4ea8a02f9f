"""Draw schedules, and what a trained model does along time: python -m diffusion_lit.plot --help"""

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command import CONFIG_FOLDER, command


@command("plot")
def main(cfg: DictConfig) -> None:
    import re
    from pathlib import Path

    from hydra.utils import instantiate

    from diffusion_lit.figure import draw_schedules, draw_strip, example_image, follow, save_animation
    from diffusion_lit.generate import condition_of, set_up

    if cfg.animation not in ("gif", "webp", None):
        raise ValueError(f"animation must be gif, webp or null, got {cfg.animation}")
    given = {re.split(r"[.=]", override)[0] for override in HydraConfig.get().overrides.task}
    if cfg.ckpt is not None and "schedule" in given:
        raise ValueError("the schedule is the checkpoint's: give either schedule or ckpt")
    if cfg.ckpt is None and (ignored := sorted(given - {"schedule", "out", "ckpt"})):
        raise ValueError(f"without ckpt only schedules are drawn, and {', '.join(ignored)} would be ignored; give ckpt")
    if cfg.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {cfg.num_samples}")
    trajectory = None
    if cfg.ckpt is None:
        schedules = {name: instantiate(member) for name, member in chosen_members("schedule").items()}
    else:
        setup, indices = set_up(cfg), range(cfg.num_samples)
        condition = condition_of(setup.labels(indices), setup.device)
        trajectory = follow(setup.denoiser, setup.sampler, indices, condition, cfg.seed, setup.device)
        schedules = {type(setup.denoiser.schedule).__name__: setup.denoiser.schedule.cpu()}
    out = Path(cfg.out)
    draw_schedules(schedules, example_image(), out / "schedules.png")
    print(out / "schedules.png")
    if trajectory is not None:
        draw_strip(trajectory, out / "trajectory.png")
        print(out / "trajectory.png")
        if cfg.animation is not None:
            save_animation(trajectory, out / f"trajectory.{cfg.animation}", columns=cfg.num_samples)
            print(out / f"trajectory.{cfg.animation}")


def chosen_members(group: str) -> dict[str, DictConfig]:
    """The configurations of a group of which several may be chosen, `GROUP=[NAME,...]`, by name.

    Hydra merges them into one; here each stays itself, with the settings `GROUP.KEY=VALUE` that it has. A name that is
    chosen twice is a ValueError.
    """
    hydra = HydraConfig.get()
    defaults = OmegaConf.load(CONFIG_FOLDER / f"{hydra.job.config_name}.yaml").defaults
    chosen = next(entry[group] for entry in defaults if isinstance(entry, DictConfig) and group in entry)
    settings: dict[str, object] = {}
    for override in OverridesParser.create().parse_overrides(list(hydra.overrides.task)):
        if override.key_or_group == group:
            chosen = override.value()
        elif override.key_or_group.startswith(f"{group}."):
            settings[override.key_or_group.removeprefix(f"{group}.")] = override.value()
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{group} must name one or more, each once; got {names}")
    members = {}
    for name in names:
        member = OmegaConf.load(CONFIG_FOLDER / group / f"{name}.yaml")
        assert isinstance(member, DictConfig)
        member.update({key: value for key, value in settings.items() if key in member})
        members[name] = member
    return members


if __name__ == "__main__":
    main()
