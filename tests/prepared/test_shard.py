"""A shard's table of contents, believed only where its items can be items."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_lit.prepared.shard import Shard, ShardInfo


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


def test_an_item_of_nothing_but_its_frame_is_an_empty_image(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "shard.bin", write(tmp_path / "shard.bin", [40, 16, 20]), None)
    assert [len(shard.encoded(i)) for i in range(3)] == [24, 0, 4]
    assert [set(shard.encoded(i).tolist()) for i in range(3)] == [{0}, set(), {2}]
    assert (shard.labels(np.arange(3)) == [0, 0x0101010101010101, 0x0202020202020202]).all()
