"""Which of the files that people have are images, and which are their system's."""

from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from diffusion_lit.source.image_file import is_image

__all__ = [
    "ARRAY",
    "EXTENSIONS",
    "HIDDEN",
    "IMAGE",
    "LABELS",
    "LABEL_FILES",
    "MAX_BYTES",
    "OTHER",
    "is_hidden",
    "kind_of",
]

IMAGE, LABELS = "an image", "a label file"
ARRAY = "an array"
"""What is an image where nothing else is, and may be features of the images beside it."""
HIDDEN, OTHER = "hidden", "not readable as images"
"""What is left out, and why."""
LABEL_FILES = ("labels.csv", "metadata.jsonl", "dataset.json")
EXTENSIONS = set(
    ".apng .avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
SYSTEM = {"$RECYCLE.BIN", "@eaDir", "System Volume Information", "Thumbs.db", "__MACOSX", "desktop.ini", "lost+found"}
"""Files and folders that Windows, macOS, Linux and network disks put beside people's own, and do not show."""
NOT_OPENED = set(
    ".7z .avi .ckpt .csv .db .gz .h5 .htm .html .ini .ipynb .json .jsonl .log .mat .md .mov .mp3 .mp4 .npz "  # noqa: SIM905
    ".parquet .pdf .pkl .pt .pth .py .rar .rtf .safetensors .svg .tar .toml .tsv .txt .wav .xlsx .xml .yaml .yml "
    ".zip".split()
)
"""Extensions of what is known not to be images; whatever other name does not say what it is, its content says."""
MAX_BYTES = 2**28  # of a file whose content is looked at


def is_hidden(path: PurePath) -> bool:
    """Whether a file or folder, or one that it is in, is a system's or begins with a dot."""
    return any(part.startswith(".") or part in SYSTEM for part in path.parts)


def kind_of(name: str, open: Callable[[str, int], Path | BinaryIO]) -> str:
    """Which of these a file is, by its name with `/` between folders and, if need be, what that opens."""
    path = PurePosixPath(name)
    if is_hidden(path):
        return HIDDEN
    if path.name in LABEL_FILES:
        return LABELS
    extension = path.suffix.lower()
    if extension in EXTENSIONS:
        return IMAGE  # or is to be: one that cannot be read is not passed over
    if extension == ".npy":
        return ARRAY
    try:
        return IMAGE if extension not in NOT_OPENED and is_image(open(name, MAX_BYTES)) else OTHER
    except ValueError:
        return OTHER
