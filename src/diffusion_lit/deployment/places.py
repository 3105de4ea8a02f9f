"""Settings as others may read them: without the places of files, which are one machine's."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_lit.command_line.catalogue import PATHS

__all__ = ["short", "without_places"]


def short(settings: Any) -> Any:
    """A part's settings for a table: without the places of files, which are another machine's, and long lists."""
    if not isinstance(settings, Mapping):
        return settings
    kept = {key: value for key, value in without_places(settings).items() if value is not None}
    return {key: value for key, value in kept.items() if not (isinstance(value, list) and len(value) > 16)}


def without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and those within them, that are not places of files."""
    inner = {key: without_places(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in inner.items() if not is_place(key, value)}


def is_place(key: str, value: Any) -> bool:
    """Whether a setting is the place of a file: not a checksum, nor a name on the Hub."""
    if isinstance(value, list):
        return any(is_place(key, item) for item in value)
    if not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{64}", value):
        return False
    if Path(value).is_absolute() or value.startswith("~") or "://" in value:
        return True
    return key in PATHS - {"name", "weights"} or (key == "name" and Path(value).exists())
