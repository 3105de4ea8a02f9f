"""Files that are whole or not there, whatever ends the writing."""

import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_lit.files import UnwritableError, is_full, remove_empty, remove_leftovers, replacing


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a b=c" / "file"
    for text in (b"old", b"new"):
        with replacing(path) as file:
            file.write(text)
            assert not path.exists() or path.read_bytes() == b"old"
        assert path.read_bytes() == text
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_fault_while_writing_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(KeyError), replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "file").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_kill_while_writing_leaves_the_old_one_and_a_leftover_that_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    if (pid := os.fork()) == 0:
        with replacing(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
@pytest.mark.parametrize("what", ["bytes", "torch", "npz"])
def test_a_full_disk_is_a_message_and_the_old_file_stays(tmp_path: Path, what: str) -> None:
    """In a process that may write no more than 64 KiB to a file, which the system reports as it does a full disk."""
    path, said = tmp_path / "last.ckpt", tmp_path / "said"
    path.write_bytes(b"old")
    said.touch()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
            with replacing(path) as file:
                match what:
                    case "bytes":
                        file.write(bytes(2**20))
                    case "torch":
                        torch.save(torch.zeros(2**16), file)
                    case "npz":
                        np.savez(file, np.zeros(2**16))
        except UnwritableError as error:
            said.write_text(str(error))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    assert "the disk is full" in said.read_text() and str(path) in said.read_text()


def test_a_full_disk_is_known_by_what_safetensors_says_of_it() -> None:
    assert is_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_full(RuntimeError("No such file (os error 2)")) and not is_full(RuntimeError("x"))


def test_what_takes_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for inner in ("file/x", "file/a/x"):
        with (
            pytest.raises(UnwritableError, match=r"file is a file, not a folder; choose another"),
            replacing(tmp_path / inner) as file,
        ):
            file.write(b"x")
    (tmp_path / "gone").mkdir()
    with pytest.raises(UnwritableError, match="its folder was removed"), replacing(tmp_path / "gone" / "x"):
        shutil.rmtree(tmp_path / "gone")


def test_empty_folders_are_removed_up_to_one_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never the working directory, or anything outside of it."""
    for inner, start in (("a/b/c", tmp_path), ("d/e", tmp_path / "d"), ("f/g", tmp_path / "a")):
        (tmp_path / inner).mkdir(parents=True)
        monkeypatch.chdir(start)
        (tmp_path / "a" / "file").touch()
        remove_empty(tmp_path / inner)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"a", "a/file", "d", "f"}


def test_what_is_not_a_leftover_stays(tmp_path: Path) -> None:
    for name in ("last.ckpt", ".hidden", "a.partial", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / ".last.ckpt.123.partial").touch()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", ".lock", "a.partial", "last.ckpt"]
