"""An exported folder on the Hugging Face Hub."""

import re
import shlex
from pathlib import Path

from diffusion_lit.extra import require

__all__ = ["check_push", "push"]

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_push(name: str | None) -> None:
    """Raise a ValueError, before there is work to lose, if nothing can be uploaded there."""
    if name is None:
        return
    if not NAME.fullmatch(str(name)):
        raise ValueError(f"push_to={name} is not a name on the Hub: give push_to=OWNER/NAME")
    require("huggingface_hub", "hub", "push_to")


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a folder, in one commit; its address.

    Raises:
        ValueError: if it could not be uploaded, with what to do; the folder is kept.
    """
    hub = require("huggingface_hub", "hub", "push_to")
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from diffusion-lit")
    except Exception as error:  # of the network and of the Hub, which raise anything
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{folder} is written, and was not uploaded to {name} ({type(error).__name__}: {reason}). Without a "
            "network leave push_to out; log in with `hf auth login`, or set HF_TOKEN; then upload it with\n"
            f"  {shlex.join(['hf', 'upload', name, str(folder.resolve())])}"
        ) from error
    return f"https://huggingface.co/{name}"
