"""A prepared set on this machine's disk, mapped into memory: nothing to decode, nothing to copy twice."""

from dataclasses import dataclass

from diffusion_lit.data.prepared import PreparedData
from diffusion_lit.prepared.manifest import Manifest

__all__ = ["MemmapData"]


@dataclass(eq=False, repr=False)
class MemmapData(PreparedData):
    """A prepared set of raw images, else a ValueError; each epoch is a permutation of all: see `PreparedData`."""

    def read_manifest(self) -> Manifest:
        manifest = super().read_manifest()
        if manifest.encoding != "raw":
            raise ValueError(
                f"data.root={self.root} holds {manifest.encoding} files, which data=memmap does not decode: use "
                "data=stream, or prepare with encoding=raw"
            )
        return manifest
