"""Several members of a config group where Hydra takes one."""

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import CONFIG_FOLDER
from diffusion_lit.command_line.composition import composed

__all__ = ["chosen_members"]


def chosen_members(group: str) -> dict[str, DictConfig]:
    """The configurations of a group of which several may be chosen, `GROUP=[NAME,...]`, by name.

    Hydra merges them into one; here each stays itself, with the settings `GROUP.KEY=VALUE` that it has. A name that is
    chosen twice is a ValueError. A file of the user's own is found where Hydra finds it, and may start from others.
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
    members: dict[str, DictConfig] = {}
    for name in names:
        file = CONFIG_FOLDER / group / f"{name}.yaml"
        own = not file.is_file()
        member = composed([f"{group}={name}"], str(hydra.job.config_name))[group] if own else OmegaConf.load(file)
        assert isinstance(member, DictConfig)
        member.update({key: value for key, value in settings.items() if key in member})
        members[name] = member
    return members
