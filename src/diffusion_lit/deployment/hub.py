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
        ValueError: if it could not be uploaded, with what to do, or others may see what is there than are meant to; the
            folder is kept.
    """
    hub = require("huggingface_hub", "hub", "push_to")
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        is_private = bool(hub.model_info(name).private)  # one that was there stays as it was
        if is_private == private:
            hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from diffusion-lit")
    except Exception as error:  # of the network and of the Hub, which raise anything
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        command = ["hf", "upload", name, str(folder.resolve()), *(["--private"] if private else [])]
        raise ValueError(
            f"{folder} is written, and was not uploaded to {name} ({type(error).__name__}: {reason}). Without a "
            "network leave push_to out; log in with `hf auth login`, or set HF_TOKEN; then upload it with\n"
            f"  {shlex.join(command)}"
        ) from error
    if is_private != private:
        found, asked = ("its owner", "everybody") if is_private else ("everybody", "its owner")
        raise ValueError(
            f"{folder} is written, and was not uploaded: {name} is there already, for {found} to see, and "
            f"private={str(private).lower()} is for {asked}. Change that on the Hub, or choose another push_to="
        )
    return f"https://huggingface.co/{name}"
