"""The networks of NVlabs/edm: the numbers that its own code gives, in tests/reference, against ours."""

import importlib
import json
import math
import pickle
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import safe_open
from torch import Tensor

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.interop import nvlabs_pickle
from diffusion_lit.interop.edm import denoiser_settings, network_settings, weights_from
from diffusion_lit.interop.published import KEY, described, read
from tests.launch import run_forked
from tests.test_imports import imported

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "reference" / "edm_networks.json").read_text())
CIFAR = {"img_resolution": 32, "img_channels": 3, "label_dim": 10, "augment_dim": 9, "model_type": "SongUNet"}
CIFAR |= {"channel_mult": [2, 2, 2], "dropout": 0.13}


def yaml(name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / f"{name}.yaml"))


def draw(name: str, shape: Sequence[int]) -> Tensor:
    """The README's rule for inputs."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """The README's rule for weights."""
    z = draw(name, shape)
    if len(shape) > 1:
        return z / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * z if name.endswith("weight") else 0.1 * z if name.endswith("bias") else z


@cache
def state(name: str) -> dict[str, Tensor]:
    return {key: weight(key, shape) for key, shape in RECORDED[name]["shapes"].items()}


@cache
def ours(name: str) -> Denoiser:
    """A published configuration as ours, with its weights."""
    settings = denoiser_settings(RECORDED[name]["config"])
    denoiser: Denoiser = instantiate({"_target_": "diffusion_lit.denoiser.Denoiser", **settings})
    denoiser.network.load_state_dict(weights_from(state(name), settings["network"]))
    return denoiser.eval()


@pytest.mark.parametrize("name", RECORDED)
@torch.no_grad()
def test_the_denoiser_is_the_published_one(name: str) -> None:
    """D(x; sigma) of the whole model, near to the data and far from it, with classes, without one, and augmented."""
    recorded, denoiser = RECORDED[name], ours(name)
    sigma, shape = torch.tensor(recorded["sigma"], dtype=torch.float64), (3, *denoiser.image_shape)
    x = draw("x", shape) * (sigma**2 + 0.25).sqrt().view(-1, 1, 1, 1)
    t = denoiser.schedule.time(-2 * sigma.log()).view(-1, 1, 1, 1)
    if denoiser.schedule.num_timesteps is not None:  # its levels are the chain's steps, in float32
        t = (t * denoiser.schedule.num_timesteps).round() / denoiser.schedule.num_timesteps
    labels = None if recorded["labels"] is None else torch.tensor(recorded["labels"])
    augment = 0.5 * draw("augment", (3, 9)) if recorded["config"].get("augment_dim") else None
    denoised = denoiser(denoiser.schedule.alpha(t) * x, t, Condition(labels, augment)).x_0
    expected = torch.tensor(recorded["denoised"], dtype=torch.float64).view(shape)
    scale = expected.abs().amax((1, 2, 3), keepdim=True).clamp(min=1)
    torch.testing.assert_close(denoised / scale, expected / scale, rtol=0, atol=1e-5)


def test_what_a_configuration_leaves_out_is_as_published() -> None:
    """`train.py --arch=ddpmpp` and the rest by default; a list of one filter, a width, a type of time."""
    settings = denoiser_settings({"class_name": "training.networks.EDMPrecond", **CIFAR})
    assert settings["schedule"] == yaml("schedule/edm") and settings["parameterization"] == yaml("parameterization/edm")
    expected = {**yaml("model/ddpmpp"), "resolution": 32, "image_channels": 3, "num_classes": 10, "augmentation_dim": 9}
    assert settings["network"] == expected
    more = {
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "resample_filter": [1, 3, 3, 1],
    }
    other = {"noise_embedding": "fourier", "pyramid": True, "resample_filter": [1, 3, 3, 1]}
    assert network_settings({"class_name": "EDMPrecond", **CIFAR, **more}) == {**expected, **other}

    adm = network_settings({"class_name": "EDMPrecond", "img_resolution": 64, "img_channels": 3})
    widths = {
        "channels": 192,
        "channel_multipliers": [1, 2, 3, 4],
        "num_res_blocks": 3,
    }  # ImageNet's, by arXiv:2105.05233
    assert adm.items() >= {**widths, "attention_resolutions": [32, 16, 8], "dropout": 0.1, "num_classes": None}.items()

    wide = {
        "img_resolution": 64,
        "img_channels": 3,
        "channel_mult": [2, 1],
    }  # the first layer has the first level's width
    wide = network_settings({"class_name": "EDMPrecond", **wide})
    assert wide.items() >= {"channels": 384, "channel_multipliers": [1, 0.5], "time_channels": 192}.items()

    chain = {"num_timesteps": 1000, "s": 0.008, "clip_min": 1e-12, "clip_max": 0.999}  # whose levels test_reference has
    iddpm = denoiser_settings(RECORDED["iddpm"]["config"])["schedule"]
    assert iddpm == {"_target_": "diffusion_lit.schedule.CosineSchedule", **chain}


def test_noise_levels_that_a_network_bounds_are_its_own() -> None:
    config = {"class_name": "EDMPrecond", **CIFAR, "sigma_min": 0.01, "sigma_max": math.inf, "use_fp16": True}
    schedule = denoiser_settings(config)["schedule"]
    assert (schedule["sigma_min"], schedule["sigma_max"]) == (0.01, 80)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_name": "VEPrecond"}, "class_name=VEPrecond cannot be expressed: .*without a scale"),
        ({"class_name": "Precond"}, "class_name='Precond' is none of EDMPrecond, VPPrecond, iDDPMPrecond"),
        ({"model_type": "Transformer"}, "model_type='Transformer' is none of SongUNet, DhariwalUNet"),
        ({"num_blocks": "4"}, "num_blocks must be int, got '4'"),
        ({"channel_mult": [1, 2.5]}, r"channel_mult\[1\] must be int, got 2.5"),
        ({"sigma_data": math.nan}, "sigma_data must be finite"),
        ({"img_channels": None}, "img_channels must be int, got None"),
        ({"beta_d": 19.9}, "'beta_d'=19.9 is not an option of EDMPrecond with SongUNet"),
        ({"class_name": "VPPrecond", "M": 4000}, "M=4000 of SongUNet cannot be expressed, only 1000"),
        ({"channel_mult_emb": 2}, "channel_mult_emb=2 of SongUNet cannot be expressed, only 4"),
        ({"encoder_type": "skip"}, "encoder_type='skip' .*only standard or residual"),
        ({"decoder_type": "skip"}, "decoder_type='skip' .*only standard"),
        ({"embedding_type": "learned"}, "embedding_type='learned' .*only positional or fourier"),
        ({"channel_mult_noise": 2}, "channel_mult_noise=2 .*only 1"),
        ({"model_type": "DhariwalUNet"}, "augment_dim=9 of DhariwalUNet .* before its layers, in our UNet after them"),
        (
            {"model_type": "DhariwalUNet", "augment_dim": 0, "model_channels": 64},
            r"widths \[128, 128, 128\] .*fewer groups",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        denoiser_settings({"class_name": "EDMPrecond", **CIFAR, **options})


def test_weights_of_another_configuration_are_named() -> None:
    settings = network_settings(RECORDED["ddpmpp"]["config"])
    with pytest.raises(
        ValueError, match=r"have model\.enc.8x8_block2.norm0.weight, which a network of this configuration"
    ):
        weights_from({"model.enc.8x8_block2.norm0.weight": torch.ones(1)}, settings)
    first, last = settings["resolution"], settings["resolution"] >> len(settings["channel_multipliers"]) - 1
    for place in (f"enc.{first}x{first}_down", f"dec.{last}x{last}_up"):  # nothing is before the first level
        with pytest.raises(ValueError, match=rf"have model\.{place}"):
            weights_from({f"model.{place}.conv0.weight": torch.ones(1)}, settings)


STAND_IN = """
class EDMPrecond:
    init_args = ()

    def __init__(self, state, options):
        self.state, self.init_kwargs = state, options

    def state_dict(self):
        return self.state
"""


def test_the_recipe_rewrites_a_pickle_that_its_owner_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process, as its owner runs it, on a stand-in for what training writes."""
    (tmp_path / "training_stand_in.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    options = {name: value for name, value in RECORDED["ddpmpp"]["config"].items() if name != "class_name"}
    network = importlib.import_module("training_stand_in").EDMPrecond(
        {**state("ddpmpp"), "model.enc.4x4_down.conv0.resample_filter": torch.ones(1, 1, 2, 2)}, options
    )
    folder = tmp_path / "runs a=1"
    folder.mkdir()
    (folder / "network.pkl").write_bytes(pickle.dumps({"ema": network, "dataset_kwargs": {}}))
    done = run_forked("interop.nvlabs_pickle", "network.pkl", str(folder / "out.safetensors"), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    with safe_open(folder / "out.safetensors", "pt") as file:
        assert described(file.metadata()) == ("edm", denoiser_settings(RECORDED["ddpmpp"]["config"]))
    weights = read(folder / "out.safetensors").weights
    own = {f"network.{name}": w for name, w in ours("ddpmpp").network.state_dict().items()}
    assert weights.keys() == own.keys() and all(torch.equal(w, own[name]) for name, w in weights.items())


def test_the_recipe_needs_none_of_this_project() -> None:
    """So that it runs where the pickle was written."""
    imports = {name for name in imported(Path(nvlabs_pickle.__file__))}
    assert imports == {"json", "pickle", "sys", "safetensors.torch.save_file"}
    assert run_forked("interop.nvlabs_pickle", "one.pkl", cwd=Path.cwd()).returncode == 1


def test_other_files_metadata_are_none_of_edm_s() -> None:
    assert described({}) is described({"format": "pt"}) is None
    with pytest.raises(ValueError, match="should hold settings by name"):
        described({KEY: "[]"})
    with pytest.raises(ValueError, match="an EDM2 network's configuration must have"):
        described({KEY: '{"class_name": "Precond"}'})
    with pytest.raises(ValueError, match="metadata nvlabs is not JSON"):
        described({KEY: "{"})
