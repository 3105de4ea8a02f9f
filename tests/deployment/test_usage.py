"""The programs of a model card do what the card says, of every kind of model that can be exported."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

import diffusion_lit as dl
from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.deployment.usage import ELSEWHERE, num_steps, reading, usage
from diffusion_lit.picture.image import to_uint8
from diffusion_lit.sampler import DDIMSampler, EulerSampler, Sampler
from diffusion_lit.space import latent_space
from tests.analytic import GaussianDenoiser, build
from tests.launch import config, read_by_bash
from tests.strangers import checkpoint, saved
from tests.test_export import exported

pytest.importorskip("diffusers")

NO_CLASSES = ("model.num_classes=null", "label_dropout=0")


@pytest.fixture(autouse=True)
def back_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def card(folder: Path, format: str, *overrides: str, space: Any = None) -> str:
    """The card of a model without classes and with random weights, whose checkpoint is `folder`/x.ckpt."""
    return card_of(folder, checkpoint(*NO_CLASSES, *overrides) | {"class_names": None}, format, space)


def card_of(folder: Path, model: dict[str, Any], format: str, space: Any = None) -> str:
    """The same of a model as a checkpoint has it."""
    generator = torch.Generator().manual_seed(1)
    for weight in model["state_dict"].values():
        if weight.ndim > 1:  # those that end a network are zero
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    if space is not None:
        model["config"]["denoiser"]["space"] = space.config()
        model["config"]["sampler"]["clip"] = None
    (folder / "x.ckpt").write_bytes(saved(model))
    out = exported(f"ckpt={folder / 'x.ckpt'}", f"format={format}", f"out={folder / 'a b'}")
    os.chdir(out)  # where its commands and programs are for
    return (out / "README.md").read_text()


def programs(text: str) -> list[str]:
    return re.findall(r"```python\n((?:.|\n)*?)```", text)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def ours(folder: Path, sampler: Sampler) -> Tensor:
    """x_0 from the noise of the cards' programs."""
    denoiser, _ = load_denoiser(folder / "x.ckpt")
    shape = (4, *denoiser.image_shape)
    return sampler(denoiser, lambda: torch.randn(shape, generator=torch.Generator().manual_seed(0)), UNCONDITIONAL)


@pytest.mark.parametrize("shift", [1, 3])
def test_a_flow_draws_our_images(shift: int, tmp_path: Path) -> None:
    text = card(tmp_path, "diffusers", "schedule=flow", f"schedule.shift={shift}", "parameterization=velocity")
    assert "the same images as with `sampler.clip=null` from the same noise" in text
    found = run(programs(text)[1])["images"]
    torch.testing.assert_close(found, ours(tmp_path, EulerSampler(50)), rtol=0, atol=1e-4)


def test_a_chain_of_few_steps(tmp_path: Path) -> None:
    """Shorter than the 50 steps that a sampler has."""
    v = ("schedule.num_timesteps=40", "parameterization=v", "schedule=cosine")
    text = card(tmp_path, "diffusers", *v)
    own, theirs = programs(text)
    [command] = re.findall(r"```sh\n(.*)\n```", text)
    drawn = dl.sample([*read_by_bash(command)[2:], "num_samples=1", f"out={tmp_path / 'x'}", "device=cpu"])
    assert (drawn / "grid.png").is_file()
    assert run(own.replace("sample(16,", "sample(1,"))["images"].shape == (1, 8, 8, 1)
    found = run(theirs.replace("=True).images", '=True, output_type="pt").images'))["images"]
    torch.testing.assert_close(found * 2 - 1, ours(tmp_path, DDIMSampler(40, clip=1)), rtol=0, atol=1e-4)


def test_five_channels(tmp_path: Path) -> None:
    """Of which a pipeline of diffusers makes no pictures."""
    v = ("model.image_channels=5", "parameterization=v", "schedule=cosine")
    found = run(programs(card(tmp_path, "diffusers", *v))[1])["images"]
    torch.testing.assert_close(found, ours(tmp_path, DDIMSampler(50, clip=1)), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:LinearSchedule with 9 steps ends far from noise")
@pytest.mark.parametrize("clip", ["null", "0.5"])
def test_images_are_clipped_as_the_run_s_are(clip: str, tmp_path: Path) -> None:
    text = card(tmp_path, "diffusers", f"sampler.clip={clip}", "parameterization=v", "schedule.num_timesteps=9")
    assert f"sample ckpt=. sampler.num_steps=9 sampler.clip={clip}\n" in text
    own, theirs = programs(text)
    assert f".sample(16, sampler=DDIMSampler(9{'' if clip == 'null' else ', clip=0.5'}))" in own
    expected = ours(tmp_path, DDIMSampler(9, clip=None if clip == "null" else 0.5))
    assert "# the noise at the chain's end" in theirs
    torch.testing.assert_close(run(theirs)["images"], expected, rtol=0, atol=1e-4)


def test_a_transformer_draws_our_images(tmp_path: Path) -> None:
    alike = ("model.frequency_shift=1", "model.channels=16", "model.depth=1", "model.num_heads=2")
    data = ("model.resolution=8", "model.image_channels=1", "model.num_classes=3", "model.augmentation_dim=0")
    space = "space={_target_: diffusion_lit.space.PixelSpace}"
    process = ("parameterization=v", "schedule=cosine", "schedule.num_timesteps=4")
    cfg = config(Path("run"), "model=dit_tiny", *alike, *data, space, *process, tiny=False)
    torch.manual_seed(0)
    state = {f"denoiser.{name}": w for name, w in instantiate(cfg.denoiser).state_dict().items()}
    model = {"config": OmegaConf.to_container(cfg, resolve=True), "state_dict": state, "ema": state, "global_step": 3}
    text = card_of(tmp_path, model, "diffusers")
    denoiser, _ = load_denoiser(tmp_path / "x.ckpt")
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = DDIMSampler(4, clip=1)(denoiser, lambda: noise, Condition(torch.arange(4) % 3))
    torch.testing.assert_close(run(programs(text)[1])["images"], expected, rtol=0, atol=1e-4)


def test_a_program_names_what_a_model_of_one_s_own_needs() -> None:
    given = reading("raw", ["my_package.networks", "other"])
    assert given == {"weights": "raw", "allow": ["my_package.networks", "other"]}
    assert reading("ema", []) == reading(None, []) == {}
    denoiser = GaussianDenoiser(build("schedule", "linear"), 0.0, 0.5)
    text = "\n".join(usage("safetensors", ".", False, denoiser, False, given, 1.0))
    assert "sample ckpt=. weights=raw 'allow=[my_package.networks,other]'\n" in text
    assert "dl.load('.', weights='raw', allow=['my_package.networks', 'other']).sample(16)" in text


def test_latents_are_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.test_space import write_autoencoder

    space = latent_space(write_autoencoder(tmp_path / "an autoencoder"))
    v = ("model.image_channels=4", "parameterization=v", "schedule=cosine")
    text = card(tmp_path, "diffusers", *v, space=space)
    assert "the same latents, and their images, from the same noise" in text
    own, theirs = programs(text)
    expected = space.decode(ours(tmp_path, DDIMSampler(50)))
    found = to_uint8(run(theirs)["images"])
    assert found.shape == expected.shape == (4, 3, 32, 32) and expected.float().std() > 5
    assert (found.int() - expected.int()).abs().max() <= 1
    assert run(own.replace("16", "1").replace("(50)", "(2)"))["images"].shape == (1, 32, 32, 3)
    [command] = re.findall(r"```sh\n(.*)\n```", text)
    [printed] = re.findall(r"^  (.*python.* -m diffusion_lit\.sample.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [word.replace(str(tmp_path / "a b"), ".") for word in read_by_bash(printed)] == read_by_bash(command)
    dl.sample([*read_by_bash(command)[2:], "num_samples=1", "sampler.num_steps=2", f"out={tmp_path / 'x'}"])


@pytest.mark.slow
def test_a_graph_of_latents(tmp_path: Path) -> None:
    from tests.test_space import write_autoencoder

    space = latent_space(write_autoencoder(tmp_path / "autoencoder"))
    text = card(
        tmp_path, "torch_export", "model.image_channels=4", "schedule=cosine", "schedule.num_timesteps=40", space=space
    )
    [code] = programs(text)
    assert f"of which the autoencoder decodes x / {space.scale} + {space.shift}" in code
    names = run(code)
    assert names["x"].shape == (4, 4, 8, 8) and np.isfinite(names["x"]).all()
    assert len(names["table"]["t"]) == 41, "a chain has no more steps"


@pytest.mark.parametrize("format", ["safetensors", "diffusers", "onnx", "torch_export"])
def test_what_is_on_the_hub_is_downloaded_first(format: str) -> None:
    """But for diffusers' programs, which do so themselves."""
    from diffusion_lit.denoiser import Denoiser
    from tests.networks import NETWORKS

    model = GaussianDenoiser(build("schedule", "linear"), 0.0, 0.5)
    denoiser = Denoiser(
        NETWORKS["unet"].build(image_channels=1, num_classes=None), model.schedule, build("parameterization", "eps")
    )
    text = "\n".join(usage(format, "me/model", True, denoiser, True, {}, 1.0))
    assert "hf download me/model --local-dir model\n" in text
    file = {"onnx": "'model/denoiser.onnx'", "torch_export": "'model/denoiser.pt2'", "diffusers": "'me/model'"}
    assert file.get(format, "'model'") in text and ELSEWHERE not in text


@pytest.mark.parametrize("chain, steps", [(1000, 50), (40, 40), (4000, 50), (90, 45), (60, 60), (997, 997), (1, 1)])
def test_steps_divide_the_chain_s(chain: int, steps: int) -> None:
    assert num_steps(GaussianDenoiser(build("schedule", "cosine", num_timesteps=chain), 0.0, 0.5)) == steps
