"""What only one feature needs is asked for by the name of its extra."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from diffusion_lit.extra import require
from diffusion_lit.prepared.cache import CLIENTS, download
from tests.launch import ROOT, TINY, run_forked

EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^X needs no_such_thing: pip install 'diffusion-lit\[sweep\]'$"):
        require("no_such_thing", "sweep", "X")
    monkeypatch.setitem(sys.modules, "json.broken", None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-lit\[sweep\]' \(import of json\.broken halted"):
        require("json.broken", "sweep", "X")
    assert require("json", "sweep", "X").dumps([]) == "[]"


@pytest.mark.parametrize("scheme", CLIENTS)
def test_a_client_of_object_storage_is_asked_for_at_once(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, extra = CLIENTS[scheme]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"^{scheme}:// needs {module}: pip install 'diffusion-lit\[{extra}\]'"):
        download(f"{scheme}://bucket/file", tmp_path / "file", {})


def test_tensorboard_is_asked_for_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = run_forked("train", *TINY, "logger=[csv,tensorboard]", cwd=tmp_path)
    assert done.returncode == 1 and list(tmp_path.iterdir()) == []
    assert "error: logger=tensorboard needs tensorboard: pip install 'diffusion-lit[tensorboard]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_extra_that_is_named_is_there() -> None:
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"require\(\s*\"[^\"]+\", \"(\w+)\"", text)}
    named |= {name for text in sources for name in re.findall(r"diffusion-lit\[(\w+)\]", text)}
    assert {"diffusers", "hugging_face", "webdataset", "sweep", "tensorboard"} <= named
    assert named | {extra for _, extra in CLIENTS.values()} <= EXTRAS
