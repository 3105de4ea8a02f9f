"""A checkpoint that a run replaces is one model and its own checksum."""

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


def test_what_is_replaced_while_it_is_loaded_is_loaded_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter((b"step 2", b"step 3", b"step 3"))

    def load(path: str) -> tuple[bytes, dict[str, object]]:
        before = file.read_bytes()
        file.write_bytes(next(steps))
        return before, {}

    monkeypatch.setattr(loading, "load_denoiser", load)
    monkeypatch.setattr(loading, "remembered", lambda path, changed: hashlib.sha256(path.read_bytes()).hexdigest())
    assert loading.loaded(str(file)) == (b"step 3", {}, hashlib.sha256(b"step 3").hexdigest())


def test_processes_with_different_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loading.check_same("run", ("1", None))
    monkeypatch.setattr(loading, "gathered_objects", lambda own: [own, ("2", None)])
    loading.check_same("run", ("2", None))
    with pytest.raises(ValueError, match="have read different checkpoints: run is being trained"):
        loading.check_same("run", ("1", None))
