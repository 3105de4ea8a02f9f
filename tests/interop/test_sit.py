"""The public SiT: its network and its path from noise to data, against what its code gives; and the files it writes."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.interop import dit, sit
from diffusion_lit.parameterization import VelocityParameterization
from diffusion_lit.position import sin_cos_positions
from diffusion_lit.sampler import EulerSampler
from diffusion_lit.schedule import FlowSchedule
from tests.interop.test_interop_dit import CASES, close, inputs, loaded, public_settings, public_state

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "sit.json").read_text())
"""What the public code gave; its field `made` says how."""
CASE = CASES[0]
TINY = {"channels": 32, "depth": 2, "num_heads": 4}


def sit_settings() -> dict[str, Any]:
    """Of the network of the fixture, whose size none of their models has."""
    return public_settings(CASE["config"]) | {"learn_variance": False, "time_scale": sit.TIME_SCALE}


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    settings = sit_settings()
    network = loaded(settings, sit.weights_from(public_state(CASE), settings))
    return Denoiser(network, FlowSchedule(), VelocityParameterization())


def test_the_public_code_gives_the_same_velocity_and_path(denoiser: Denoiser) -> None:
    """Its time 0.3 is our 0.7, and its velocity is ours with the other sign; ten of its Euler steps are ours."""
    x, _, condition = inputs(CASE)
    with torch.no_grad():
        close(-denoiser(x, torch.full((3, 1, 1, 1), 0.7), condition).output, FIXTURE["velocity"])
        close(EulerSampler(10)(denoiser, lambda: x, condition), FIXTURE["data"])


def test_of_twice_the_channels_the_first_half_is_read() -> None:
    """Of each pixel of a patch, whatever its size, with the other sign."""
    settings = sit_settings() | {"patch_size": 4}
    state = public_state(CASE) | {"pos_embed": sin_cos_positions(2, 2, settings["channels"])[None]}
    state["final_layer.linear.bias"] = torch.arange(4 * 4 * 8.0)  # 8 channels a pixel
    found = sit.weights_from(state | {"final_layer.linear.weight": torch.zeros(128, 32)}, settings)
    expected = [-float(8 * pixel + channel) for pixel in range(16) for channel in range(4)]
    assert found["last.linear.bias"].tolist() == expected


def test_flags_say_the_network() -> None:
    flags = {"model": "SiT-B/4", "image-size": "512", "num-classes": "10", "path-type": "Linear", "last-step": "Mean"}
    expected = dit.network_settings({"model": "DiT-B/4", "image-size": "512", "num-classes": "10"})
    assert sit.network_settings(flags) == expected | {"learn_variance": False, "time_scale": 0.001}
    assert sit.network_settings({}) == sit.network_settings({"model": "SiT-XL/2", "image-size": 256})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"path-type": "GVP"}, "path_type='GVP' of SiT has no equal here: Linear alone"),
        ({"prediction": "noise"}, "prediction='noise' of SiT has no equal here: velocity alone"),
        ({"model": "DiT-XL/2"}, "SiT's scripts have no model='DiT-XL/2'; they have SiT-S/2, .*SiT-XL/2"),
        ({"model": "SiT-XL/3"}, "SiT's scripts have no model='SiT-XL/3'; they have SiT-S/2, .*SiT-XL/2"),
        ({"width": 3}, "SiT's scripts have no flag 'width'"),
    ],
)
def test_what_has_no_equal_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sit.network_settings(flags)


def written(file: Path, monkeypatch: pytest.MonkeyPatch, **others: Any) -> dict[str, Tensor]:
    """What its train.py saves, of a tiny network that goes by the name of the smallest."""
    monkeypatch.setitem(dit.WIDTHS, "S", (32, 2, 4))
    state = public_state(CASE)
    raw = {name: w + 1 for name, w in state.items()}
    torch.save({"model": raw, "ema": state, "opt": {"state": {}}, "args": Namespace(model="SiT-S/2")} | others, file)
    return state


def test_a_checkpoint_of_its_training_is_its_average(
    tmp_path: Path, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the flags beside it; which are asked for; the same weights alone; and raw weights, which are not taken."""
    caplog.set_level("INFO")
    file, flags = tmp_path / "0400000.pt", tmp_path / "0400000.flags"
    state = written(file, monkeypatch)
    with pytest.raises(ValueError, match=r"(?s)nothing says of what network.*--model SiT-XL/2"):
        load_checkpoint(file)
    flags.write_text("--model SiT-S/2 --image-size=64 --num-classes 7 --cfg-scale 1.5")
    found, checkpoint = load_denoiser(file)
    assert checkpoint["config"]["schedule"]["_target_"] == "diffusion_lit.schedule.FlowSchedule"
    assert "sampler=ode sampler.clip=null" in caplog.text and checkpoint["kind"].startswith("SiT's network")
    expected = denoiser.network.state_dict()
    assert all(torch.equal(w, expected[name]) for name, w in found.network.state_dict().items())
    with pytest.raises(ValueError, match="has no weights named raw; use weights=ema"):
        load_denoiser(file, "raw")
    torch.save(state, file)
    again, checkpoint = load_denoiser(file)
    assert "unnamed" in checkpoint and all(torch.equal(w, expected[n]) for n, w in again.network.state_dict().items())


class Sneaky(Namespace):
    """A class of a stranger's, which is not one of flags."""


def test_nothing_but_flags_and_numbers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.pt"
    file.with_suffix(".flags").write_text("--model SiT-S/2 --image-size 64 --num-classes 7")
    written(file, monkeypatch, more=Sneaky())
    with pytest.raises(ValueError, match=r"refused, and nothing in it was run: beside tensors it names .*Sneaky"):
        load_denoiser(file)
    written(file, monkeypatch, ema={"blocks": Namespace(a=1)})
    with pytest.raises(ValueError, match="should hold tensors by name alone"):
        load_denoiser(file)
