"""Plain settings as YAML that OmegaConf, and any other reader, takes for what they are."""

from collections.abc import Mapping
from typing import Any

import yaml

from diffusion_lit.command_line.catalogue import FLOAT

__all__ = ["yaml_text"]

SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's, where PyYAML has it: ten times as fast


class Dumper(SafeDumper):  # type: ignore[misc]
    """Text that OmegaConf would read as a number, such as 1e-4, is quoted; what is there twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


Dumper.add_implicit_resolver(*FLOAT)


def yaml_text(settings: Mapping[str, Any]) -> str:
    """Dictionaries, lists, text, numbers, booleans and None as a YAML file, in their order."""
    text: str = yaml.dump(dict(settings), Dumper=Dumper, allow_unicode=True, sort_keys=False, default_flow_style=False)
    return text
