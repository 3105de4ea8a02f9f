"""What is taken for an image, what is left out, and that it is said."""

import io
from pathlib import Path

import pytest
from PIL import Image

from diffusion_lit.source.archive import TarSource, ZipSource
from diffusion_lit.source.base import FileSource
from diffusion_lit.source.file_kind import HIDDEN, OTHER
from diffusion_lit.source.folder import FolderSource
from tests.pictures import png, reading, write_folder, write_tar, write_zip


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 40, 90)).save(file, kind)
    return file.getvalue()


IMAGES = {
    "cat/a.jfif": encoded("jpeg"),
    "cat/b.JPE": encoded("jpeg"),
    "cat/c.avif": encoded("avif"),
    "cat/d.jp2": encoded("jpeg2000"),
    "cat/no extension": png(0),
    "cat/0a1b2c": encoded("webp"),
    "dog/photo.2024-02": encoded("gif"),
    "dog/photo.unknown": encoded("tiff"),
    "dog/one.png": png(1),
    "dog/BMP": encoded("bmp"),
}
HIDDEN_FILES = [
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "cat/Thumbs.db",
    "cat/._a.jfif",
    "cat/.ipynb_checkpoints/a-checkpoint.png",
    ".ipynb_checkpoints/b-checkpoint.png",
    "__MACOSX/cat/c.png",
    "dog/@eaDir/one.png/SYNOPHOTO_THUMB_M.jpg",
    ".hidden",
    "._labels.csv",
]
OTHER_FILES = {
    "README": b"Pictures of animals.",
    "P5 and P6": b"P5 and P6 are formats, and this is a text",
    "cat/BMW": b"BM, as bitmaps begin",
    "cat/caption.txt": b"a cat",
    "dog/one.json": b"{}",
    "dog/icon.ico": encoded("ico"),
    "dog/print": encoded("eps"),
    "dog/empty": b"",
    "dog/attachment.txt": png(3),  # says that it is something else
    "list.csv": b"file,kind",
}


@pytest.mark.parametrize("flat", [False, True])
def test_images_are_found_by_their_content_and_the_rest_is_said(tmp_path: Path, flat: bool) -> None:
    """Alike in a folder, a ZIP and a tar file, in class folders and without; every file is accounted for."""

    def placed(name: str) -> str:
        return name.removeprefix("cat/").removeprefix("dog/") if flat else name

    images = {placed(name): data for name, data in IMAGES.items()}
    other = {placed(name): data for name, data in OTHER_FILES.items()}
    hidden = {placed(name): png(2) for name in HIDDEN_FILES}
    files = images | other | hidden
    sources: list[FileSource] = [
        FolderSource(write_folder(tmp_path / "in", files), 0.2),
        ZipSource(write_zip(tmp_path / "a.zip", {f"photos/{name}": data for name, data in files.items()}), 0.2),
        TarSource(write_tar(tmp_path / "a.tar", {f"./photos/{name}": data for name, data in files.items()}), 0.2),
    ]
    for source in sources:
        assert sorted(entry.name for entries in source.splits.values() for entry in entries) == sorted(images)
        assert source.class_names == (None if flat else ["cat", "dog"])
        left_out = {name.removeprefix("photos/"): kind for name, kind in source.left_out.items()}
        assert left_out == dict.fromkeys(hidden, HIDDEN) | dict.fromkeys(other, OTHER)
        [said] = source.remarks()
        assert said.startswith(f"left out {len(hidden) + len(other)} files: {len(hidden)} hidden, such as ")
        assert f"; {len(other)} not readable as images, such as " in said
        for split, entries in source.splits.items():
            for index in range(len(entries)):
                assert source.read(split, index, reading()).shape == (3, 8, 8)


def test_what_should_be_an_image_is_never_passed_over(tmp_path: Path) -> None:
    """A broken file that is called an image is for the check, or for the report, to name."""
    source = FolderSource(write_folder(tmp_path, {f"{i}.png": b"" for i in range(5)}), 0.2)
    assert sum(map(len, source.splits.values())) == 5 and source.remarks() == []


def test_classes_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    names = ["train/cat/0.png", "train/cat/1.png", "val/cat/0.png", "val/emu/0.png", "test/fox/0.png", "test/gnu/0.png"]
    source = FolderSource(write_folder(tmp_path, dict.fromkeys(names, b"")), 0.2)
    assert source.class_names == ["cat", "emu", "fox", "gnu"]
    assert source.remarks() == [
        "classes of val without images in train (1): emu",
        "classes of test without images in train (2): fox, gnu",
    ]
