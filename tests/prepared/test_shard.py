"""A shard's table of contents, believed only where its items can be items."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_lit.prepared.shard import Shard, ShardInfo, write_shard


def write(path: Path, sizes: list[int]) -> ShardInfo:
    """A file with a table of items of these sizes, each byte of an item its number."""
    ends = 4 * (len(sizes) + 2) + np.cumsum([0, *sizes])
    items = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    path.write_bytes(np.array([len(sizes), *ends], "<u4").tobytes() + items)
    return ShardInfo(path.name, len(sizes), path.stat().st_size, "")


@pytest.mark.parametrize("sizes", [[40, 15, 40], [15, 40], [40, 0], [7]])
def test_an_item_too_small_for_its_frame_is_damage(tmp_path: Path, sizes: list[int]) -> None:
    """Two lengths and a class take 16 bytes; the file is otherwise as its table and the manifest have it."""
    info = write(tmp_path / "shard.bin", sizes)
    with pytest.raises(ValueError, match=r"shard\.bin is damaged: its table of contents"):
        Shard(tmp_path / "shard.bin", info, None)


def test_raw_images_lie_between_their_lengths_and_classes(tmp_path: Path) -> None:
    items, label = np.arange(3 * 5, dtype=np.uint8).reshape(3, 5), np.array([7, -1, 2**40], "<i8")
    path = tmp_path / "shard.bin"
    config = write_shard([(item.tobytes(), int(number)) for item, number in zip(items, label, strict=True)], path, 3)
    info = ShardInfo(path.name, 3, path.stat().st_size, "")
    info.check(5)
    shard, order = Shard(path, info, 5), np.array([2, 0])
    assert (shard.raw(order) == items[order]).all() and (shard.labels(order) == label[order]).all()
    assert config["chunk_size"] is None and config["data_format"] == ["bytes", "int"]
    for wrong in (4, 6):
        with pytest.raises(ValueError, match="table of contents"):
            Shard(path, info, wrong)


@pytest.mark.parametrize(
    ("count", "size", "item_bytes"),
    [(0, 8, None), (0, 8, 5), (2, 47, None), (2, 57, 5), (2, 59, 5)],
)
def test_a_file_that_cannot_have_its_images_is_refused(count: int, size: int, item_bytes: int | None) -> None:
    """4 bytes for the number of items, n + 1 offsets of 4, and for each item 16 beside the image."""
    with pytest.raises(ValueError, match=rf"x\.bin cannot have {count} images in {size} bytes"):
        ShardInfo("x.bin", count, size, "").check(item_bytes)
    for enough, each in ((48, None), (1000, None), (58, 5)):
        ShardInfo("x.bin", 2, enough, "").check(each)


def test_an_item_of_nothing_but_its_frame_is_an_empty_image(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "shard.bin", write(tmp_path / "shard.bin", [40, 16, 20]), None)
    assert [len(shard.encoded(i)) for i in range(3)] == [24, 0, 4]
    assert [set(shard.encoded(i).tolist()) for i in range(3)] == [{0}, set(), {2}]
    assert (shard.labels(np.arange(3)) == [0, 0x0101010101010101, 0x0202020202020202]).all()
