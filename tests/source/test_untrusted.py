"""Files from anywhere: what they try is refused by name, and nothing is written outside the folder that is given."""

import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from diffusion_lit import files
from diffusion_lit.preparation.settings import open_source
from diffusion_lit.preparation.workspace import Workspace
from diffusion_lit.prepared.manifest import WORK
from diffusion_lit.source.archive import TarSource, ZipSource, decompressed
from diffusion_lit.source.base import FileSource
from diffusion_lit.source.folder import FolderSource
from tests.pictures import huge_png, named, png, prepare, reading, settings, tree, write_folder, write_tar, write_zip

FILES = named(20)


@pytest.fixture(autouse=True)
def nothing_is_written_elsewhere(tmp_path: Path) -> Iterator[None]:
    """Every archive lies in `in`, its prepared set in `out`; a file beside them would be an escape."""
    (tmp_path / "in").mkdir()
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "out"}
    assert not Path("/escaped.png").exists()


def opened(path: Path) -> FileSource:
    source = open_source(settings(source=str(path)), Workspace(path.parents[1] / "out"))
    assert isinstance(source, FileSource)
    return source


def refused(path: Path, *words: str) -> str:
    """What opening says; nothing is left when it has said so, but what was only decompressed in the set's folder."""
    folder = path.parents[1]
    before = tree(folder)
    with pytest.raises(ValueError) as caught:
        opened(path)
    left = tree(folder).keys() - before.keys() - {"out", f"out/{WORK}"}
    assert {name: data for name, data in tree(folder).items() if name in before} == before
    assert all(name.startswith(f"out/{WORK}/{path.name}.") and name.endswith((".tar", ".tar.lock")) for name in left)
    for word in (str(path), *words):
        assert word in str(caught.value)
    return str(caught.value)


ESCAPES = [
    "/escaped.png",
    "//escaped.png",
    "../escaped.png",
    "cat/../../escaped.png",
    "cat/..",
    "..\\escaped.png",
    "cat\\..\\..\\escaped.png",
    "\\escaped.png",
    "C:\\escaped.png",
    "C:/escaped.png",
    "c:escaped.png",
    "\\\\server\\share\\escaped.png",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out(tmp_path: Path, kind: str, name: str) -> None:
    path, files = tmp_path / "in" / f"a.{kind}", FILES | {name: png(0)}
    if kind == "zip":
        write_zip(path, files)
    else:
        write_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
    refused(path, name, "leads out of the archive")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_dots_in_names_cannot_escape(tmp_path: Path, kind: str) -> None:
    files = {f"cat../{i}..x..png": data for i, data in enumerate(FILES.values())}
    source = opened((write_zip if kind == "zip" else write_tar)(tmp_path / "in" / f"a.{kind}", files))
    assert sum(map(len, source.splits.values())) == len(files)


@pytest.mark.parametrize("name", ["", "."])
def test_a_name_of_nothing(tmp_path: Path, name: str) -> None:
    refused(write_tar(tmp_path / "in" / "a.tar", FILES | {name: b"x"}), "leads out of the archive")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is not an ordinary file"),
        (tarfile.BLKTYPE, "is not an ordinary file"),
        (tarfile.FIFOTYPE, "is not an ordinary file"),
        (tarfile.CONTTYPE, ""),
        (b"Z", "is not an ordinary file"),
    ],
)
@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "cat/000.png"])
def test_tar_members_that_are_not_files(tmp_path: Path, kind: bytes, word: str, target: str) -> None:
    path = write_tar(tmp_path / "in" / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("cat/special.png")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    if word:
        refused(path, "cat/special.png", word)
    else:
        manifest = prepare(TarSource(path, 0.2), tmp_path / "out", max_unreadable=0.5)
        assert manifest.num_unreadable == 1


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in" / "a.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    refused(path, "cat/link.png is a link")


def test_sparse_members(tmp_path: Path) -> None:
    """A few bytes that say they are 8 GiB of zeros, in both of the formats."""
    path = tmp_path / "in" / "a.tar"
    write_tar(
        path, FILES | {"cat/holes.png": b"0\n"}, pax_headers={"GNU.sparse.size": str(2**33), "GNU.sparse.map": "0,1"}
    )
    refused(path, "is not an ordinary file")
    block = bytearray(tarfile.TarInfo("cat/holes.png").tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"00000000000\0" * 2  # the only piece: from 0, nothing
    block[483:495] = b"77777777777\0"  # the size with holes
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:512]))
    path.write_bytes(bytes(block) + write_tar(path, FILES).read_bytes())
    refused(path, "cat/holes.png is not an ordinary file")


def test_a_member_of_negative_size_does_not_go_round_for_ever(tmp_path: Path) -> None:
    """CVE-2025-8194: tarfile goes back by the size, and finds the same member again."""
    path = write_tar(tmp_path / "in" / "a.tar", FILES)
    block = bytearray(tarfile.TarInfo("cat/back.png").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:512]))
    path.write_bytes(bytes(block) + path.read_bytes())
    refused(path, "cat/back.png says it has -512 bytes")


def test_encrypted_members(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in" / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    last = data.rfind(b"PK\1\2")
    data[last + 8] |= 1  # the flag in the table of contents
    path.write_bytes(data)
    refused(path, f"{list(FILES)[-1]} is encrypted", "unpack")


@pytest.mark.parametrize("second", ["cat/000.png", "./cat/000.png", "cat//000.png", "cat\\000.png"])
def test_two_members_of_one_name(tmp_path: Path, second: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the test's own doing
        path = write_zip(tmp_path / "in" / "a.zip", FILES)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(second, png(99))
    refused(path, "several files named cat/000.png")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8bno gzip", random.Random(0).randbytes(2000), bytes(3)])
def test_what_is_not_an_archive(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "in" / name
    path.write_bytes(data)
    message = refused(path)
    assert "fetch it again" in message


def member_ends(path: Path) -> list[int]:
    with tarfile.open(path) as archive:
        return [member.offset for member in archive][1:]


@pytest.mark.parametrize("at", ["in a file", "between files", "in a header", "before the end mark"])
def test_truncated_tar_files(tmp_path: Path, at: str) -> None:
    """Cut between two files it is an archive of fewer, but for the mark at the end."""
    path = write_tar(tmp_path / "in" / "a.tar", FILES)
    middle = member_ends(path)[3]
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    cut = {"in a file": middle + 700, "between files": middle, "in a header": middle + 100, "before the end mark": end}
    path.write_bytes(path.read_bytes()[: cut[at]])
    message = refused(path, "fetch it again")
    assert list(FILES)[{"in a file": 4, "before the end mark": 19}.get(at, 3)] in message or "unexpected end" in message


def test_a_damaged_header_in_a_tar_file_is_not_its_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in" / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    data[member_ends(path)[3] + 5] ^= 1
    path.write_bytes(data)
    refused(path, f"what follows {list(FILES)[3]} is neither a file nor the end")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_truncated_compressed_files(tmp_path: Path, suffix: str) -> None:
    path = write_tar(tmp_path / "in" / f"a.tar.{suffix}", FILES, f"w:{suffix}")
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "fetch it again")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_compressed_file_with_a_damaged_middle(tmp_path: Path, suffix: str) -> None:
    path = write_tar(tmp_path / "in" / f"a.tar.{suffix}", FILES, f"w:{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xa5" * 8
    path.write_bytes(data)
    refused(path, "fetch it again")


def test_a_decompression_bomb_is_stopped(tmp_path: Path) -> None:
    path, work = tmp_path / "in" / "a.tar.gz", tmp_path / "out"
    work.mkdir()
    with gzip.open(path, "wb", 6) as file:
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(ValueError, match="decompression bomb") as caught:
        decompressed(path, work)
    assert str(path) in str(caught.value) and {file.suffix for file in work.iterdir()} == {".lock"}


def test_what_a_killed_process_left_of_an_archive_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is whole, for it was on the disk before it had its name."""
    flushed, flush = [], files.flush
    monkeypatch.setattr(files, "flush", lambda path, mode: (flushed.append(files.final_name(path)), flush(path, mode)))
    path, work = write_tar(tmp_path / "in" / "a[1].tar.gz", FILES, "w:gz"), tmp_path / "out"
    target = decompressed(path, work)
    whole = target.read_bytes()
    target.rename(work / f".{target.name}.7.partial")
    assert decompressed(path, work) == target and target.read_bytes() == whole
    assert not list(work.glob(".*")) and target.name in flushed


def test_truncated_zip_files(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in" / "a.zip", FILES)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        refused(path, "fetch it again")


# Members that cannot be read are listed, and the others are prepared.


def listed(source: FileSource, out: Path, **options: int) -> dict[str, str]:
    """What is left out, and why."""
    manifest = prepare(source, out, max_unreadable=0.5, **options)
    lines = (out / "unreadable.txt").read_text().splitlines()
    assert manifest.num_unreadable == len(lines)
    assert sum(split.count for split in manifest.splits.values()) + len(lines) == sum(map(len, source.splits.values()))
    return dict(line.split("\t") for line in lines)


def sources_of(tmp_path: Path, files: dict[str, bytes]) -> Iterator[tuple[FileSource, Path]]:
    zipped = write_zip(tmp_path / "in" / "a.zip", files)
    tarred = write_tar(tmp_path / "in" / "a.tar", files)
    folder = write_folder(tmp_path / "in" / "folder", files)
    for number, path in enumerate((zipped, tarred, folder)):
        yield FolderSource(path, 0.2) if path.is_dir() else opened(path), tmp_path / "out" / str(number)


@pytest.mark.parametrize("side", [1001, 9000, 50_000])
def test_an_image_that_claims_too_many_pixels_is_not_decoded(
    tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def record(image: ImageFile.ImageFile) -> object:
        decoded.append(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", record)
    for source, out in sources_of(tmp_path, FILES | {"cat/huge.png": huge_png(side, side)}):
        reasons = listed(source, out)
        assert list(reasons) == ["cat/huge.png"] and "pixels" in reasons["cat/huge.png"]
    assert decoded and (side, side) not in decoded


def test_as_many_pixels_as_max_pixels_are_read(tmp_path: Path) -> None:
    files = FILES | {"cat/at.png": png(0, (50, 20)), "cat/over.png": png(0, (77, 13))}
    for source, out in sources_of(tmp_path, files):
        assert listed(source, out, max_pixels=1000) == {
            "cat/over.png": "(ValueError: 77 x 13 pixels are over the limit of 1000)"
        }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg/>",
        png(0)[:60],
        png(0)[:8],
        random.Random(0).randbytes(500),
        b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    ],
)
def test_other_files_with_an_image_s_name(tmp_path: Path, data: bytes) -> None:
    for source, out in sources_of(tmp_path, FILES | {"cat/text.png": data}):
        assert list(listed(source, out)) == ["cat/text.png"]


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand it to Ghostscript, whatever the file's name."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "eps")
    for source, out in sources_of(tmp_path, FILES | {"cat/program.png": file.getvalue()}):
        assert list(listed(source, out)) == ["cat/program.png"]


def test_a_zip_member_that_says_it_is_huge(tmp_path: Path) -> None:
    """It is not even begun to be unpacked."""
    path = write_zip(tmp_path / "in" / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\1\2") + 24, 2**31)
    path.write_bytes(data)
    name = list(FILES)[-1]
    reasons = listed(ZipSource(path, 0.2), tmp_path / "out")
    assert list(reasons) == [name] and f"{name} is of {2**31} bytes" in reasons[name]


def test_a_zip_member_that_grows(tmp_path: Path) -> None:
    files = FILES | {"cat/bomb.png": bytes(2**24 - 2**20)}
    path = write_zip(tmp_path / "in" / "a.zip", files)
    assert path.stat().st_size < 2**17
    reasons = listed(ZipSource(path, 0.2), tmp_path / "out", max_pixels=1000)
    assert list(reasons) == ["cat/bomb.png"] and "more than any image within max_pixels" in reasons["cat/bomb.png"]


def test_a_zip_member_larger_than_it_says(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in" / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\1\2") + 24, 50)
    path.write_bytes(data)
    assert list(listed(ZipSource(path, 0.2), tmp_path / "out")) == [list(FILES)[-1]]


def test_a_wrong_checksum_in_a_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in" / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\1\2") + 16] ^= 1
    path.write_bytes(data)
    name = list(FILES)[-1]
    reasons = listed(ZipSource(path, 0.2), tmp_path / "out")
    assert list(reasons) == [name] and "CRC" in reasons[name] and name in reasons[name]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_whatever_bytes_are_changed_only_user_errors_are_reported(tmp_path: Path, kind: str) -> None:
    """No other error than those that the command shows without a traceback, and no other file."""
    path, files, generator = tmp_path / "in" / f"a.{kind}", named(8), random.Random(0)
    if kind == "zip":
        write_zip(path, files)
    else:
        write_tar(path, files, "w" if kind == "tar" else "w:gz")
    whole = path.read_bytes()
    told = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(generator.randint(1, 6)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            path.write_bytes(data)
            try:
                source = opened(path)
            except ValueError:
                told += 1
                continue
            for split, entries in source.splits.items():
                for index in range(len(entries)):
                    try:
                        source.read(split, index, reading())
                    except ValueError:
                        told += 1
    assert told > 20
