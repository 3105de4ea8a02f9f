"""Files that try to run something, to read the environment or to write elsewhere, by every key that reads a file."""

import contextlib
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from diffusion_lit.autoencoder import Autoencoder
from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.evaluation import own_data
from diffusion_lit.prepared.manifest import Manifest
from tests.data.prepared_set import prepare, write_folder
from tests.hydra_shortcuts import composed
from tests.launch import TINY, run_forked
from tests.preparation.test_latents import write_autoencoder
from tests.strangers import SECRET, Touch, changed, checkpoint, payloads, run, saved

GOOD = checkpoint()
SECRET_VALUE = "a secret of the environment"
QUICK = ("num_samples=2", "sampler.num_steps=2", "device=cpu")
ENTRIES = {
    "ckpt": ["sample", "ckpt=x.ckpt", *QUICK],
    "guide": ["sample", "ckpt=good.ckpt", "guide=x.ckpt", "guidance=2", *QUICK],
    "plot": ["plot", "ckpt=x.ckpt", *QUICK],
    "evaluate": ["evaluate", "ckpt=x.ckpt", "num_samples=2", "device=cpu", "feature=pixels", "metrics=[fid]"],
    "resume": ["train", "resume=x.ckpt", "callback.fid=null", *TINY[:4]],
}
NAMES = (
    *("os.system", "posix.system", "subprocess", "exec", "pathlib", "pathlib.touch", "numpy.load", "torch.load"),
    *("torch.hub", "import", "through our module", "our function"),
)
PLACES = ("", "network", "schedule", "space", "network.channels", "network.channel_multipliers.0", "new", "network.new")


class Room:
    """A folder to work in, and beside it where a mark would be."""

    def __init__(self, root: Path) -> None:
        self.root, self.work, self.mark = root, root / "work", root / "mark"
        (root / "files").mkdir()
        self.work.mkdir()
        self.payloads = payloads(root / "files", self.mark)
        assert tuple(self.payloads) == NAMES
        (self.work / "good.ckpt").write_bytes(saved(GOOD))

    def config_of(self, payload: str, place: str) -> dict[str, Any]:
        return changed(GOOD["config"], f"denoiser.{place}".rstrip("."), self.payloads[payload])

    def refused(self, *args: str) -> str:
        """What the command says."""
        before = {path for path in self.root.rglob("*") if not path.is_relative_to(self.work)}
        done = run_forked(args[0], *args[1:], cwd=self.work)
        said = done.stdout + done.stderr
        assert not self.mark.exists(), said
        assert done.returncode == 1 and "error: " in said and "Traceback" not in said, said
        assert "weights_only" not in said and SECRET_VALUE not in said
        assert {path for path in self.root.rglob("*") if not path.is_relative_to(self.work)} == before
        for file in self.work.rglob("*"):
            assert not file.is_file() or SECRET_VALUE.encode() not in file.read_bytes(), file
        return said


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setenv(SECRET, SECRET_VALUE)
    room = Room(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "files"))
    yield room
    assert not room.mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_each_payload_works_where_nothing_stops_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the tests below could not fail."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(RuntimeError):  # torch.load's, once the pickle has run
        run(payloads(tmp_path, tmp_path / "mark")[name])
    written = [path for path in tmp_path.glob("mark*") if path.is_file()]
    assert written


@pytest.mark.parametrize("name", NAMES)
def test_no_payload_in_a_checkpoint_is_run(name: str, room: Room) -> None:
    for place in PLACES:
        (room.work / "x.ckpt").write_bytes(saved(GOOD | {"config": room.config_of(name, place)}))
        with pytest.raises(ValueError, match=r"x\.ckpt.*nothing in it was run"):
            load_denoiser(room.work / "x.ckpt")
        assert not room.mark.exists(), place


@pytest.mark.parametrize("entry", ["ckpt", "guide", "plot", "evaluate"])
def test_commands_run_no_payload_of_a_checkpoint(entry: str, room: Room) -> None:
    for name in ("os.system", "numpy.load", "torch.hub") if entry == "ckpt" else ("pathlib",):
        (room.work / "x.ckpt").write_bytes(saved(GOOD | {"config": room.config_of(name, "network.channels")}))
        said = room.refused(*ENTRIES[entry])
        assert "x.ckpt" in said and "'network.channels._target_'" in said


def test_one_s_own_class_is_drawn_from_where_allow_names_it(room: Room) -> None:
    (room.root / "files" / "own_networks.py").write_text(
        "from diffusion_lit.model import UNet\n\nclass Own(UNet):\n    pass\n"
    )
    config = changed(GOOD["config"], "denoiser.network._target_", "own_networks.Own")
    (room.work / "x.ckpt").write_bytes(saved(GOOD | {"config": config}))
    assert "add allow=[own_networks]" in room.refused(*ENTRIES["guide"])
    guided = ("sample", "ckpt=x.ckpt", "guide=x.ckpt", "guidance=2", "allow=[own_networks]", *QUICK)
    done = run_forked(*guided, cwd=room.work)
    assert done.returncode == 0, done.stderr
    recorded = config | {"allow": ["own_networks"]}  # which the file itself cannot say
    (room.work / "x.ckpt").write_bytes(saved(GOOD | {"config": recorded}))
    with pytest.raises(ValueError, match="own_networks"):
        load_denoiser(room.work / "x.ckpt")


@pytest.mark.parametrize("entry", ENTRIES)
def test_commands_refuse_pickles_and_interpolations(entry: str, room: Room) -> None:
    secret = changed(GOOD["config"], "model.dropout", f"${{oc.env:{SECRET}}}")
    files = {
        "names": pickle.dumps(Touch(room.mark), 2),
        "without interpolations": saved(GOOD | {"config": secret}),
        "beside tensors it names": saved(GOOD | {"more": Touch(room.mark)}),
    }
    for words in {"ckpt": list(files), "resume": list(files)[:2]}.get(entry, list(files)[:1]):
        data = files[words]
        (room.work / "x.ckpt").write_bytes(data)
        said = room.refused(*ENTRIES[entry])
        assert words in said and "x.ckpt" in said, said


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_pickles_of_every_age_are_refused(room: Room) -> None:
    script = room.work / "script.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(script))
    old = room.work / "old.pt"
    torch.save(GOOD | {"more": Touch(room.mark)}, old, _use_new_zipfile_serialization=False)
    files = {f"{protocol}.ckpt": pickle.dumps(Touch(room.mark), protocol) for protocol in range(6)}
    files |= {
        "script.ckpt": script.read_bytes(),
        "old.ckpt": old.read_bytes(),
        "text.ckpt": b"import os",
        "no.ckpt": b"",
    }
    for name, data in files.items():
        (room.work / name).write_bytes(data)
        with pytest.raises(ValueError, match=name) as caught:
            load_denoiser(room.work / name)
        assert "weights_only" not in str(caught.value) and not room.mark.exists()


@pytest.mark.parametrize("run_dir", ["/", "ROOT/", "."])
def test_no_run_folder_that_a_checkpoint_names_makes_it_write_elsewhere(run_dir: str, room: Room) -> None:
    """A run's table and its checkpoints would replace and remove what is there."""
    victim = "victim" if run_dir == "." else str(room.root / "victim")
    run_dir = run_dir.replace("ROOT", str(room.root))
    config = OmegaConf.to_container(composed([f"run_dir={run_dir}", *TINY[:4]]), resolve=True)
    assert isinstance(config, dict)
    config["logger"]["csv"]["folder"] = victim
    parts = {"loops": {}, "callbacks": {}, "optimizer_states": [], "global_step": 3, "overrides": list(TINY[:4])}
    (room.work / "x.ckpt").write_bytes(saved({**GOOD, **parts, "config": config}))
    said = room.refused("train", "resume=x.ckpt", "callback.fid=null")
    assert "'logger.csv.folder' is" in said and "outside of the run's folder" in said


def test_resume_auto_reads_runs_as_data(room: Room) -> None:
    """What a checkpoint below the output folder hides is left aside, and not even read."""
    folder = room.work / "outputs" / "train" / "stranger" / "checkpoints"
    folder.mkdir(parents=True)
    config = changed(GOOD["config"], "model.dropout", f"${{oc.env:{SECRET}}}")
    (folder / "last.ckpt").write_bytes(saved({**GOOD, "config": config}))
    said = room.refused("train", "resume=auto", "callback.fid=null", "label_dropout=2", *TINY[:4])
    assert "left aside" in said and "without interpolations" in said and "label_dropout is a probability" in said


def test_a_file_of_features_weights_is_data(room: Room) -> None:
    (room.work / "x.pth").write_bytes(pickle.dumps(Touch(room.mark), 2))
    assert "x.pth is refused" in room.refused("train", "feature=inception", "feature.weights=x.pth", *TINY[:4])


def test_images_that_are_evaluated_are_data(room: Room) -> None:
    pickled = np.empty(2, object)
    pickled[0] = Touch(room.mark)
    np.savez(room.work / "x.npz", arr_0=pickled)
    np.savez(room.work / "y.npz", arr_0=np.zeros((2, 8, 8, 1), np.uint8), arr_1=pickled)
    np.savez(room.work / "good.npz", arr_0=np.zeros((2, 8, 8, 1), np.uint8))
    (room.work / "z.npz").write_bytes(pickle.dumps(Touch(room.mark)))
    with zipfile.ZipFile(room.work / "x.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", pickle.dumps(Touch(room.mark)))
    for name in ("x.npz", "y.npz", "z.npz", "x.zip"):
        for place in ("samples", "against"):
            others = {"samples": "good.npz", "against": "good.npz", place: name}
            given = [f"{key}={value}" for key, value in others.items()]
            said = room.refused("evaluate", *given, "feature=pixels", "metrics=[fid]", "device=cpu", "cache=cache")
            assert name in said and ("cannot be read" in said or "cannot read" in said), said


@pytest.mark.parametrize("name", ["os.system", "import"])
def test_the_data_of_a_checkpoint_is_not_run_by_evaluate(name: str, room: Room) -> None:
    for place in ("data", "data.batch_size", "data.augmentation"):
        config = changed(GOOD["config"], place, room.payloads[name])
        (room.work / "x.ckpt").write_bytes(saved(GOOD | {"config": config}))
        assert "nothing in it was run" in room.refused(*ENTRIES["evaluate"])


def test_evaluate_keeps_what_it_fetches_where_this_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(own_data, "instantiate", lambda config: made.append(config) or MagicMock())
    data = {"_target_": "diffusion_lit.data.StreamData", "root": "s3://x", "cache": "/home/victim"}
    own_data.open_own_data(MagicMock(checkpoint={"config": {"data": data}}), "x.ckpt", None, ())
    assert (made[0].root, made[0].cache) == ("s3://x", None)


# Prepared sets.

SHARDS = "splits.train.shards.0"
NAMED = [
    *("../../x", "../x.bin", "/tmp/x.bin", "x.bin", "train/../../x.bin", "train/x.bin", "val/shard-00000.bin", ""),
    *("train/shard-00000.bin\n", "train/shard-00000.bin/../x", "train\\shard-00000.bin", "s3://x/shard-00000.bin"),
]
LATENTS = {"autoencoder": "a", "sha256": "0" * 64, "scale": 1.0, "shift": 0.0, "factor": 2}
WRONG: dict[str, list[object]] = {
    "resolution": [0, -1, 2**40, 4.5, "4", None, True, [], {}],
    "channels": [0, -3, 2**40, "3", None],
    "encoding": ["eps", "raw\n", 1, None],
    "class_names": ["ab", [1], {"a": 1}],
    "splits": [[], {}, {"../x": {}}, None],
    "splits.train": [[], {}, None],
    "splits.train.count": [0, 1, "16", None],
    "splits.train.class_counts": [[1], ["a", "b"], "ab"],
    "splits.train.shards": [[], {}, None],
    f"{SHARDS}.file": [*NAMED, 1, None],
    f"{SHARDS}.count": [0, -1, 2**40, "10", None],
    f"{SHARDS}.bytes": [0, -1, 2**62, "10", None],
    f"{SHARDS}.sha256": [1, None],
    "content_hash": [1, None],
    "num_unreadable": ["1", None],
    "latents": [{}, [], "a", LATENTS | {"scale": float("nan")}, LATENTS | {"shift": float("inf")}],
    "latents.autoencoder": [f"${{oc.env:{SECRET}}}", "???", 1, None],
    "latents.scale": [0, -1, "1"],
    "latents.sha256": ["x", 1],
    "format": [None, 1, "diffusion-lit 2"],
    "new": [1],
}


@pytest.fixture
def prepared(room: Room) -> dict[str, Any]:
    write_folder(room.work / "folder", 16)
    prepare(room.work / "folder", room.work / "set")
    facts: dict[str, Any] = json.loads((room.work / "set" / "manifest.json").read_text())
    return facts


def write(room: Room, facts: dict[str, Any], key: str, value: object) -> None:
    if key.startswith("latents."):
        facts = facts | {"latents": LATENTS}
    (room.work / "set" / "manifest.json").write_text(json.dumps(changed(facts, key, value)))


def test_no_value_of_a_manifest_is_taken_for_another(room: Room, prepared: dict[str, Any]) -> None:
    path = room.work / "set" / "manifest.json"
    Manifest.load(path)
    payload = room.payloads["os.system"]
    for key, values in WRONG.items():
        for value in [*values, payload, [payload]]:
            write(room, prepared, key, value)
            with pytest.raises(ValueError, match=r"manifest\.json is (damaged|of the format)"):
                Manifest.load(path)
                pytest.fail(f"{key}={value!r} was taken")


TRAIN = ("callback.fid=null", "trainer.max_steps=1", *TINY[:4])
MANIFESTS = {
    "a dictionary for a number": ("channels", {"_target_": "os.system", "_args_": ["touch mark"]}),
    "an autoencoder's name": ("latents.autoencoder", {"_target_": "os.system", "_args_": ["touch mark"]}),
    "the environment": ("latents.autoencoder", f"${{oc.env:{SECRET}}}"),
    "a shard elsewhere": (f"{SHARDS}.file", "../../../escaped.bin"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_commands_take_a_manifest_for_data(name: str, room: Room, prepared: dict[str, Any]) -> None:
    key, value = MANIFESTS[name]
    if isinstance(value, dict):
        value = room.payloads["os.system"]
    write(room, prepared, key, value)
    stream = ("train", "data=stream", "data.root=local:set", "data.cache=cache")
    for args in (stream, ("inspect", "data.root=set")) if name == "an autoencoder's name" else (stream,):
        assert "manifest.json is damaged" in room.refused(*args, *(TRAIN if args[0] == "train" else ()))


# Autoencoders.


@pytest.fixture
def latent(room: Room) -> Path:
    """A model of latents, whose autoencoder is in `autoencoder`."""
    write_autoencoder(room.work / "autoencoder")
    space = {"_target_": "diffusion_lit.space.LatentSpace", "autoencoder": "autoencoder", "scale": 0.5}
    config = changed(GOOD["config"], "denoiser.space", space)
    (room.work / "x.ckpt").write_bytes(saved(GOOD | {"config": config}))
    return room.work / "autoencoder"


def test_an_autoencoder_is_data(room: Room, latent: Path) -> None:
    weights, described = latent / "diffusion_pytorch_model.safetensors", latent / "config.json"
    facts = json.loads(described.read_text())
    for key in ("_class_name", "latent_channels", "scaling_factor", "block_out_channels", "quantization_config"):
        described.write_text(json.dumps(facts | {key: room.payloads["os.system"]}))
        with pytest.raises(ValueError, match=r"config\.json"):
            Autoencoder(latent)
    assert "quantized" in room.refused("sample", "ckpt=x.ckpt", "autoencoder=autoencoder", "sampler.clip=null", *QUICK)
    write_folder(room.work / "folder", 16)
    said = room.refused("prepare", "source=folder", "out=out", "resolution=16", "latents=autoencoder")
    assert "quantized weights" in said
    described.write_text(json.dumps(facts))
    weights.unlink()
    torch.save({"x": Touch(room.mark)}, latent / "diffusion_pytorch_model.bin")
    assert "has no diffusion_pytorch_model.safetensors" in room.refused(*ENTRIES["ckpt"], "sampler.clip=null")
    weights.write_bytes((latent / "diffusion_pytorch_model.bin").read_bytes())
    with pytest.raises(ValueError, match="cannot be loaded"):
        Autoencoder(latent)
