"""A checkpoint that a run replaces is one model and its own checksum, or refused."""

import hashlib
from pathlib import Path

import pytest

from diffusion_lit import loading


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose model is what it holds."""
    (path := tmp_path / "last.ckpt").write_bytes(b"step 1")
    monkeypatch.setattr(loading, "load_denoiser", lambda path: (Path(path).read_bytes(), {}))
    return path


def test_a_model_has_the_checksum_of_what_was_loaded(file: Path) -> None:
    for data in (b"step 1", b"step 2"):
        file.write_bytes(data)
        assert loading.loaded(str(file)) == (data, {}, hashlib.sha256(data).hexdigest())


def test_what_is_replaced_while_it_is_loaded_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_denoiser", lambda path: (file.write_bytes(b"step two"), {}))
    with pytest.raises(ValueError, match=r"last\.ckpt was replaced while it was read.*name the copy"):
        loading.loaded(str(file))


def test_processes_with_different_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loading.check_same("run", ("1", None))
    monkeypatch.setattr(loading, "gathered_objects", lambda own: [own, ("2", None)])
    loading.check_same("run", ("2", None))
    with pytest.raises(ValueError, match="run was replaced"):
        loading.check_same("run", ("1", None))
