"""WebDataset shards: what is read from them, and every mistake in them is named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from diffusion_lit.data import WebDatasetData
from diffusion_lit.data.webdataset import TarShards
from tests.streams import VAL, png, stream, write_stream, write_tar


def numbers(path: Path, **options: Any) -> list[tuple[bytes, int | None]]:
    shards = TarShards([str(path)], **{"image_key": "jpg;png", "num_classes": 3} | options)
    return [(sample.image, sample.label) for sample in shards.read(0)]


def data(root: Path, **options: Any) -> WebDatasetData:
    write_tar(root / "train.tar", range(10))
    write_tar(root / "val.tar", VAL)
    defaults = {"urls": str(root / "train.tar"), "val_urls": str(root / "val.tar"), "epoch_size": 10}
    return WebDatasetData(**defaults | options)


def test_samples_are_read_with_their_labels(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", range(5))
    assert numbers(tmp_path / "a.tar") == [(png(n), n % 3) for n in range(5)]
    assert numbers(tmp_path / "a.tar", num_classes=None) == [(png(n), None) for n in range(5)]


def test_labels_in_json(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [1], cls=b"2")
    assert numbers(tmp_path / "a.tar") == [(png(1), 2)]
    shards = TarShards([""], "png", 3)
    assert shards.label({"json": json.dumps({"label": 2, "text": "a cat"}).encode()}, "x") == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"cls": b"3"}, ["sample 007 of", "label 3", "not in 0 .. 2", "data.num_classes=3 is too small"]),
        ({"cls": b"-1"}, ["sample 007 of", "label -1"]),
        ({"cls": b"cat"}, ["sample 007 of", "has no label", "data.num_classes=null", "cat"]),
        ({"cls": b"1.5"}, ["sample 007 of", "has no label"]),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, files: dict[str, bytes], words: list[str]) -> None:
    write_tar(tmp_path / "a.tar", [7], **files)
    with pytest.raises(ValueError) as caught:
        numbers(tmp_path / "a.tar")
    for word in [*words, str(tmp_path / "a.tar")]:
        assert word in str(caught.value)
    assert numbers(tmp_path / "a.tar", num_classes=None), "without labels they do not matter"


@pytest.mark.parametrize("text", [b"{}", b"[1]", b"{", b'{"label": null}'])
def test_json_without_a_label(text: bytes) -> None:
    with pytest.raises(ValueError, match="sample x has no label"):
        TarShards([""], "png", 3).label({"json": text}, "x")


def test_a_sample_without_an_image(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [7])
    with pytest.raises(ValueError, match=r"sample 007 of .*a\.tar has no image: its files are cls png, .* jpg;"):
        numbers(tmp_path / "a.tar", image_key="jpg;webp")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_non_image_is_named_with_its_shard(tmp_path: Path, num_workers: int) -> None:
    write_stream("webdataset", tmp_path, [4])
    write_tar(tmp_path / "train-0.tar", [5], png=b"no image")
    loader = stream("webdataset", tmp_path, num_workers=num_workers).train_dataloader()
    with pytest.raises(ValueError, match=r"cannot read this file as an image(.|\n)*005 of .*train-0\.tar"):
        list(loader)


@pytest.mark.parametrize("size", [10, 300, 512, 700, 1024, 1536, 2048, 2100, 512 * 12])
def test_a_shard_cut_short_is_named(tmp_path: Path, size: int) -> None:
    """Wherever it is cut: in a header, in an image, between two files."""
    path = tmp_path / "a.tar"
    write_tar(path, range(5))
    whole = path.read_bytes()
    assert len(numbers(path)) == 5
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"shard .*a\.tar cannot be read to its end: it is missing, cut short"):
        numbers(path)


def test_a_shard_that_is_gone_is_named(tmp_path: Path) -> None:
    write_stream("webdataset", tmp_path)
    loader = stream("webdataset", tmp_path).train_dataloader()
    (tmp_path / "train-3.tar").unlink()
    with pytest.raises(ValueError, match=r"shard .*train-3\.tar cannot be read"):
        list(loader)


def test_a_shard_that_is_not_a_tar_file(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(ValueError, match=r"shard .*a\.tar cannot be read"):
        numbers(tmp_path / "a.tar")


def test_compressed_shards_are_read_and_checked(tmp_path: Path) -> None:
    import gzip

    write_tar(tmp_path / "a.tar", range(5))
    packed = gzip.compress((tmp_path / "a.tar").read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(packed)
    assert len(numbers(tmp_path / "a.tar.gz")) == 5
    (tmp_path / "a.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"shard .*a\.tar\.gz cannot be read"):
        numbers(tmp_path / "a.tar.gz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """webdataset's own decoders would load these."""
    marks = {"pyd": b"cos\nsystem\n(S'exit 1'\ntR.", "pth": b"x"}
    write_tar(tmp_path / "a.tar", range(2), **marks)
    assert numbers(tmp_path / "a.tar") == [(png(n), n % 3) for n in range(2)]


def test_too_few_shards(tmp_path: Path) -> None:
    write_stream("webdataset", tmp_path, [5, 5, 5])
    with pytest.raises(ValueError, match=r"3 shards, too few for 2 processes x 2 .*: use data\.num_workers=1$"):
        stream("webdataset", tmp_path, 0, 2, num_workers=2).train_dataloader()
    with pytest.raises(ValueError, match=r"3 shards, too few for 4 processes x 1 .*fewer processes"):
        stream("webdataset", tmp_path, 0, 4).train_dataloader()


def test_shards_without_images(tmp_path: Path) -> None:
    write_stream("webdataset", tmp_path, [0, 0])
    with pytest.raises(ValueError, match=r"no image in its share .* 2 shards"):
        list(stream("webdataset", tmp_path).train_dataloader())
    write_tar(tmp_path / "val.tar", [])
    with pytest.raises(ValueError, match="no images to validate or test on"):
        stream("webdataset", tmp_path)


@pytest.mark.parametrize("option", ["urls", "val_urls"])
def test_shards_that_are_not_given_or_not_there(tmp_path: Path, option: str) -> None:
    for nothing in (None, []):
        with pytest.raises(ValueError, match=rf"say where the shards are: 'data\.{option}="):
            data(tmp_path, **{option: nothing})
    with pytest.raises(FileNotFoundError, match=rf"data\.{option}: there is no file .*b-1\.tar"):
        write_tar(tmp_path / "b-0.tar", [0])
        data(tmp_path, **{option: f"{tmp_path}/b-{{0..1}}.tar"})


def test_lists_and_braces(tmp_path: Path) -> None:
    for i in range(12):
        write_tar(tmp_path / f"{i:03d}.tar", [i])
    urls = data(tmp_path, urls=[f"{tmp_path}/{{000..009}}.tar", f"{tmp_path}/011.tar"]).shards["train"].urls
    assert urls == [f"{tmp_path}/{i:03d}.tar" for i in (*range(10), 11)]


def test_the_size_of_an_epoch_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give data\.epoch_size="):
        data(tmp_path, epoch_size=None)


def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-lit\[webdataset\]'"):
        data(tmp_path)


def test_test_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "test.tar", [1, 2])
    chosen = data(tmp_path, test_urls=str(tmp_path / "test.tar"), resolution=2, channels=1)
    chosen.setup()
    assert len(chosen.splits["test"]) == 2 and len(chosen.splits["val"]) == len(VAL)
