"""Our own exported models: they are what was exported, to the bit, or refused."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion_lit.checkpoint import choose_weights, damage, find_checkpoint, load_checkpoint, load_denoiser
from diffusion_lit.derived import denoiser_settings
from diffusion_lit.interop import own
from diffusion_lit.interop.foreign import Foreign
from diffusion_lit.run.resume import find_origin
from tests.strangers import checkpoint, payloads, saved


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "a = b"
    folder.mkdir()
    good = checkpoint()
    weights = {name.removeprefix("denoiser."): w for name, w in good["ema"].items()}
    names = good["class_names"]
    model = Foreign("", denoiser_settings(good["config"]), weights, "ema", names, [3] * 10, 7, "bf16-mixed")
    own.write(model, {"torch": "2"}, folder)
    (folder.parent / "good.ckpt").write_bytes(saved(good))
    return folder


def test_what_is_exported_is_read_back(exported: Path, tmp_path: Path) -> None:
    """From the folder, and from the file of the weights wherever it is."""
    shutil.copy(exported / own.WEIGHTS, tmp_path / "moved.safetensors")
    before, _ = load_denoiser(exported.parent / "good.ckpt")
    for path in (exported, exported / own.WEIGHTS, tmp_path / "moved.safetensors"):
        denoiser, found = load_denoiser(path)
        assert find_checkpoint(path) == path and damage(path) is None
        weights = denoiser.state_dict()
        assert all(torch.equal(weight, weights[name]) for name, weight in before.state_dict().items())
        assert (found["global_step"], found["class_counts"], found["class_names"][3]) == (7, [3] * 10, "3")
        assert found["config"]["trainer"]["precision"] == "bf16-mixed"
        with pytest.raises(ValueError, match="holds no more than weights: begin a new run with them, init="):
            find_origin(path)
    with pytest.raises(ValueError, match="has no weights named raw; use weights=ema"):
        load_denoiser(exported, "raw")


def test_a_single_set_of_weights_is_not_taken_for_another(caplog: pytest.LogCaptureFixture) -> None:
    of_another = {"unnamed": {"a": torch.zeros(1)}, "kind": "a network"}
    caplog.set_level("INFO")
    assert choose_weights(of_another, "ema", "x") is of_another["unnamed"]
    assert "x: a network; one set of weights, averaged or not, is all it has" in caplog.text
    with pytest.raises(
        ValueError, match="x has one set of weights, and nothing says that they are raw: leave init_wei"
    ):
        choose_weights(of_another, "raw", "x", "init_weights")


@pytest.mark.parametrize("name", ["raw", "ema_short", "power_0.13", "power_.1"])
def test_weights_of_any_name_are_read_by_it(exported: Path, name: str, tmp_path: Path) -> None:
    model = replace(own.read(exported), weights_name=name)
    own.write(model, {}, tmp_path)
    denoiser, _ = load_denoiser(tmp_path, name)
    assert all(torch.equal(model.weights[key], weight) for key, weight in denoiser.state_dict().items())
    with pytest.raises(ValueError, match=f"has no weights named ema; use weights={name}$"):
        load_denoiser(tmp_path)


def test_a_config_json_that_is_another_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    record = json.loads((folder / own.RECORD).read_text())
    for text, message in [
        (json.dumps(record | {"step": 8}), "config.json is not what model.safetensors was exported with"),
        ("[1]", "should hold settings by name, and has"),
        ('{"a": ' * 60 + "1" + "}" * 60, "config.json is refused: it has over|nests"),
        (" " * (11 * 2**20), "has 11,534,336 bytes, and settings have at most"),
        ("{", "config.json is not JSON, or is damaged"),
    ]:
        (folder / own.RECORD).write_text(text)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(folder)
    (folder / own.WEIGHTS).unlink()
    assert own.files(folder) is None


def test_damage_is_found(exported: Path, tmp_path: Path) -> None:
    """A flipped bit, a cut, another type: never a wrong answer, nor another error than a user's mistake."""
    data, file = (exported / own.WEIGHTS).read_bytes(), tmp_path / "x.safetensors"
    generator = random.Random(0)
    for i in range(40):
        changed = bytearray(data)
        changed[generator.randrange(len(data)) if i % 2 else generator.randrange(4000)] ^= 1 << generator.randrange(8)
        file.write_bytes(changed[: generator.randrange(len(data))] if i % 5 == 0 else changed)
        with pytest.raises(ValueError, match=r"x\.safetensors"):
            load_denoiser(file)


def test_what_describes_it_is_under_its_checksum_too(exported: Path, tmp_path: Path) -> None:
    """Each digit, letter and sign of it; without, a model of another dropout or class name would be read in silence."""
    data, file = (exported / own.WEIGHTS).read_bytes(), tmp_path / "x.safetensors"
    begin, end = data.index(b"denoiser"), data.index(b"sha256")
    for place in range(begin, end, 7):
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"x\.safetensors"):
            load_denoiser(file)


def test_weights_are_written_however_they_lie_in_memory(tmp_path: Path) -> None:
    """Transposed, strided, and trained; their checksum is that of the same numbers in a row."""
    table = torch.arange(12.0).view(3, 4)
    weights = {"transposed": table.t(), "strided": table[0, ::2], "trained": torch.nn.Parameter(table)}
    own.write(Foreign("", {"_target_": "x"}, weights), {}, tmp_path)
    found = own.read(tmp_path).weights
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert own.digest(found) == own.digest({name: weight.detach() for name, weight in weights.items()})


def test_an_export_whose_tensors_alone_had_a_checksum_is_read(exported: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights, metadata = own.read_safetensors(exported / own.WEIGHTS)
    record = json.loads(metadata[own.KEY]) | {"sha256": own.digest(weights)}
    save_file(weights, tmp_path / "x.safetensors", {own.KEY: json.dumps(record)})
    assert load_denoiser(tmp_path / "x.safetensors")[1]["global_step"] == record["step"]


def test_a_record_in_another_order_has_the_same_checksum(exported: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights, metadata = own.read_safetensors(exported / own.WEIGHTS)
    record = json.loads(metadata[own.KEY])
    save_file(weights, tmp_path / "x.safetensors", {own.KEY: json.dumps(record, sort_keys=True)})
    assert list(record) != sorted(record) and own.read(tmp_path / "x.safetensors").step == record["step"]


def test_nothing_in_it_is_run(exported: Path, tmp_path: Path) -> None:
    weights, metadata = own.read_safetensors(exported / own.WEIGHTS)
    record = json.loads(metadata[own.KEY])
    from safetensors.torch import save_file

    for name, payload in payloads(tmp_path, tmp_path / "mark").items():
        for denoiser in (payload, record["denoiser"] | {"network": payload}):
            changed = {key: value for key, value in record.items() if key != "sha256"} | {"denoiser": denoiser}
            changed["sha256"] = own.digest(weights, changed)
            save_file(weights, tmp_path / "x.safetensors", {own.KEY: json.dumps(changed)})
            with pytest.raises(ValueError, match="is refused, and nothing in it was run"):
                load_denoiser(tmp_path / "x.safetensors")
            assert not (tmp_path / "mark").exists(), name


def test_weights_alone_say_what_to_write(tmp_path: Path) -> None:
    torch.save({"out.weight": torch.zeros(2)}, tmp_path / "64 x 64.pt")
    with pytest.raises(
        ValueError, match=r"on one line, into .*64 x 64\.flags; such as\nof improved-diffusion(.|\n)*--model DiT"
    ):
        load_denoiser(tmp_path / "64 x 64.pt")
