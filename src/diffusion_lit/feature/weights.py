"""Files of weights that others have published."""

import logging
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from diffusion_lit.files import checksum
from diffusion_lit.trust.tensor_file import load_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedWeights:
    """One such file: where it comes from, and how it is recognised."""

    file: str
    """Its name in torch's hub cache."""
    url: str
    sha256: str
    licence: str

    def find(self, weights: str | None) -> tuple[Path, str]:
        """The file and its SHA-256: `weights`, or the one in torch's hub cache, downloaded where it is not there yet.

        A file that the user names may be another than the published one, with a warning.

        Raises:
            FileNotFoundError: if it is not there and cannot be fetched.
            ValueError: if what is in the cache, or was fetched, is not the published file.
        """
        path = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / self.file
        if weights is not None and not path.is_file():
            raise FileNotFoundError(
                f"feature.weights={weights} does not exist; it should be a copy of {self.file} ({self.url})"
            )
        if not path.is_file():
            self.download(path)
        log.info("loading %s", path)
        if (found := checksum(path)) != self.sha256:
            what = f"{path} is not the published {self.file}: its SHA-256 is {found}, not {self.sha256}"
            if weights is None:
                raise ValueError(f"{what}. Delete it, and it is downloaded again")
            log.warning("%s. Figures compare only with others that come from this very file", what)
        return path, found

    def download(self, path: Path) -> None:
        """Fetch the file; of several processes on one machine, one does."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.is_file():
                    log.info("downloading %s to %s", self.url, path)
                    torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256)
        except (OSError, HTTPException) as error:
            raise FileNotFoundError(
                f"these features need weights: {path} is not there and could not be downloaded from {self.url} "
                f"({error}). Copy {self.file} there, or name it with feature.weights=PATH, or choose "
                "feature=random_vgg or feature=pixels. A metric that has features of its own is left out, or takes "
                "metrics.NAME.extractor.weights=PATH"
            ) from error
        except RuntimeError as error:  # torch's, where the checksum differs
            raise ValueError(
                f"{self.url} is not what was published ({error}); name a copy with feature.weights=PATH"
            ) from error

    def tensors(self, path: Path) -> Any:
        """What is in the file, of which nothing is run."""
        return load_tensors(path, f"is damaged, or is not {self.file}; fetch it again")

    def fill(self, network: nn.Module, state: dict[str, Any], path: Path) -> None:
        """Give a network these weights, in float32, and fix them.

        Raises:
            ValueError: if they are another network's.
        """
        try:
            network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        except (RuntimeError, AttributeError) as error:
            [reason, *_] = str(error).splitlines()[1:] or [str(error)]
            raise ValueError(f"{path} holds weights of another network than {self.file} ({reason.strip()})") from error
        network.eval().requires_grad_(False)
