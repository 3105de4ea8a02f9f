"""Folders and files of other projects, as ckpt= and init= take them, and as export writes them."""

import json
import random
import re
import shlex
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import diffusion_lit as dl
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.command_line.shell import quote
from diffusion_lit.condition import Condition
from diffusion_lit.interop import diffusers_folder, nvlabs_pickle, published
from diffusion_lit.interop.foreign import read_state
from diffusion_lit.interop.readers import read_foreign
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.training import train
from tests.launch import TINY as SMALL
from tests.launch import config
from tests.strangers import checkpoint, saved
from tests.test_export import exported
from tests.test_fuzz import VALUES, altered, refusals

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("diffusion_lit.interop.diffusers_unet")

TINY = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDPMPipeline of diffusers in a folder, with random weights.

    Its network predicts v: of eps, the first steps would multiply what is rounded by up to 1 / alpha = 160.
    """
    folder = tmp_path_factory.mktemp("theirs") / "a = b"
    torch.manual_seed(0)
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", variance_type="fixed_large", prediction_type="v_prediction"
    )
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**TINY).eval(), scheduler).save_pretrained(folder)
    return folder


def drawn_by_ours(path: Path, noise: torch.Tensor, labels: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
    denoiser, _ = load_denoiser(path)
    return DDIMSampler(50, **settings)(denoiser, lambda: noise, Condition(labels))


def test_a_pipeline_of_diffusers_draws_its_own_images_here(pipeline: Path, caplog: pytest.LogCaptureFixture) -> None:
    """DDIM's 50 steps from the same noise, in the spacings whose steps diffusers takes as it says."""
    caplog.set_level("INFO")
    theirs = diffusers.DDIMPipeline.from_pretrained(pipeline)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for spacing in ("trailing", "leading"):
        for clip in (True, False):
            options = {"timestep_spacing": spacing, "clip_sample": clip}
            scheduler = diffusers.DDIMScheduler.from_config(theirs.scheduler.config, **options)
            scheduler.set_timesteps(50)
            x = (1 - scheduler.alphas_cumprod[scheduler.timesteps[0]]).sqrt() * noise  # sigma, 1 at the chain's end
            for t in scheduler.timesteps:
                with torch.no_grad():
                    output = theirs.unet(x, t).sample
                x = scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
            found = drawn_by_ours(pipeline, noise, spacing=spacing, clip=1.0 if clip else None)
            torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    assert "UNet2DModel with DDPMScheduler, of diffusers; one set of weights, averaged or not, is all" in caplog.text
    assert "draws as sampler=ddpm sampler.variance=large sampler.clip=1 sampler.spacing=leading does" in caplog.text
    with pytest.raises(ValueError, match="nothing says that they are raw"):
        load_denoiser(pipeline, "raw")


def test_parts_of_a_pipeline(pipeline: Path, tmp_path: Path) -> None:
    """Its network's folder alone finds the scheduler beside it; without one, what to write is said, and works."""
    first = load_checkpoint(pipeline)["unnamed"]
    beside = load_checkpoint(pipeline / "unet")["unnamed"]
    assert all(torch.equal(weight, beside[name]) for name, weight in first.items())
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in (pipeline / "unet").iterdir():
        (alone / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match="nothing says what it was trained on") as error:
        load_checkpoint(alone)
    [text] = re.findall(r"\{.*\}", str(error.value))
    (alone / "scheduler_config.json").write_text(text)
    assert load_checkpoint(alone)["config"]["schedule"]["_target_"] == "diffusion_lit.schedule.LinearSchedule"
    weights = alone / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    config = json.loads((alone / "config.json").read_text())
    for change, message in [
        ({"act_fn": "gelu"}, "act_fn=gelu of UNet2DModel cannot be expressed"),
        ({"_class_name": "UNet2DConditionModel"}, "describes a 'UNet2DConditionModel'; of these there is an equal"),
        ({"block_out_channels": "x"}, "alone"),
        ({"layers_per_block": 3}, "alone"),
    ]:
        (alone / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            load_denoiser(alone)
    (alone / "config.json").write_text(json.dumps(config))
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="is not a safetensors file, or is damaged"):
        load_denoiser(alone)
    weights.rename(alone / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(FileNotFoundError, match=r"has no diffusion_pytorch_model.safetensors; .*fp16.*of another kind"):
        load_denoiser(alone)
    (alone / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no diffusion_pytorch_model\.safetensors$"):
        load_denoiser(alone)


def test_training_begins_with_a_folder(pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its network, whatever the settings here are, and its schedule; another one is said to be another."""
    caplog.set_level("INFO")
    weights = load_checkpoint(pipeline)["unnamed"]
    own = [option for option in SMALL if not option.startswith("model.")]
    own += ["model.num_classes=null", "trainer.max_steps=1", "optimizer.lr=1e-12", f"init={quote(str(pipeline))}"]

    def said(name: str, *overrides: str) -> str:
        caplog.clear()
        train(config(tmp_path / name, *own, *overrides, tiny=False), [*own, *overrides])
        return caplog.text

    assert "of diffusers" in (text := said("run")) and "trained with the first" not in text
    found = load_checkpoint(tmp_path / "run")
    assert found["config"]["schedule"]["_target_"] == "diffusion_lit.schedule.ScaledLinearSchedule"
    assert found["config"]["model"]["num_groups"] == TINY["norm_num_groups"]
    for name, weight in weights.items():
        torch.testing.assert_close(found["state_dict"][name], weight, rtol=0, atol=1e-6)
    assert "ScaledLinearSchedule ->" in (text := said("other", "schedule=linear")) and "trained with the first" in text


@pytest.mark.parametrize("classes", ["null", "10"])
def test_our_model_is_diffusers(classes: str, tmp_path: Path) -> None:
    """Its program draws our images, from the same noise; and it comes back to the bit."""
    ours = checkpoint(f"model.num_classes={classes}", "parameterization=v", "schedule=cosine")
    (tmp_path / "x.ckpt").write_bytes(saved(ours))
    out = exported(f"ckpt={tmp_path / 'x.ckpt'}", "format=diffusers", f"out={tmp_path / 'a b'}")
    scheduler = diffusers.DDPMPipeline.from_pretrained(out).scheduler
    assert scheduler.config.variance_type == "fixed_small"  # nothing learned it
    [code] = re.findall(r"```python\n(import torch(?:.|\n)*?)```", (out / "README.md").read_text())
    names: dict[str, Any] = {}
    with chdir(out):
        exec(code.replace("=True).images", '=True, output_type="pt").images'), names)
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = None if classes == "null" else torch.arange(4)
    expected = drawn_by_ours(tmp_path / "x.ckpt", noise, labels, clip=1.0)
    found = names["images"] * 2 - 1 if "Pipeline" in code else names["images"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    before, after = load_denoiser(tmp_path / "x.ckpt")[0].state_dict(), load_denoiser(out)[0].state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert torch.equal(drawn_by_ours(out, noise, labels, clip=1.0), expected)
    assert dl.load(out).class_names == ours["class_names"]


def test_a_pipeline_that_is_exported_again_draws_as_it_did(tmp_path: Path) -> None:
    """By way of our own format, too: as far as a scheduler of diffusers says it, and beside its steps."""
    network, options = diffusers.UNet2DModel(**TINY), {"variance_type": "fixed_large", "clip_sample_range": 2.5}
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(**options)).save_pretrained(tmp_path / "a")
    exported(f"ckpt={tmp_path / 'a'}", f"out={tmp_path / 'own'}")
    for source in ("a", "own"):
        out = exported(f"ckpt={tmp_path / source}", "format=diffusers", f"out={tmp_path / f'{source} again'}")
        again = diffusers.DDPMPipeline.from_pretrained(out)
        assert {key: again.scheduler.config[key] for key in options} == options
        assert "sample ckpt=. sampler.clip=2.5\n" in (out / "README.md").read_text()
        state = again.unet.state_dict()
        assert all(torch.equal(weight, state[name]) for name, weight in network.state_dict().items())


def test_a_variance_itself_is_not_taken_for_one_between_bounds(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel(**{**TINY, "out_channels": 2})
    for kind in ("learned", "learned_range"):
        diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(variance_type=kind)).save_pretrained(tmp_path / kind)
    with pytest.raises(ValueError, match=r"scheduler_config\.json: variance_type is learned, a variance itself"):
        load_denoiser(tmp_path / "learned")
    assert load_denoiser(tmp_path / "learned_range")[0].learns_variance


def test_what_diffusers_cannot_express_is_refused(tmp_path: Path) -> None:
    refused = {
        "schedule=vp": "schedule=VPSchedule, which is continuous",
        "parameterization=edm": "parameterization=EDMParameterization",
        "model.augmentation_dim=9": "augmentation_dim=9",
    }
    for override, message in refused.items():
        (tmp_path / "x.ckpt").write_bytes(saved(checkpoint(override)))
        with pytest.raises(ValueError, match=f"format=diffusers.*{message}"):
            exported(f"ckpt={tmp_path / 'x.ckpt'}", "format=diffusers", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_a_flow_goes_out_without_a_pipeline(tmp_path: Path) -> None:
    ours = checkpoint("schedule=flow", "parameterization=velocity")
    (tmp_path / "x.ckpt").write_bytes(saved(ours))
    out = exported(f"ckpt={tmp_path / 'x.ckpt'}", "format=diffusers", f"out={tmp_path / 'out'}")
    [code] = re.findall(r"```python\n(import torch(?:.|\n)*?)```", (out / "README.md").read_text())
    names: dict[str, Any] = {}
    with chdir(out):
        exec(code, names)
    assert names["images"].isfinite().all() and not (out / "model_index.json").exists()
    x_t, t = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 1.0]).view(-1, 1, 1, 1)
    models = [load_denoiser(path)[0] for path in (tmp_path / "x.ckpt", out)]
    with torch.no_grad():
        one, other = (model(x_t, t, Condition(torch.arange(3))).x_0 for model in models)
    assert torch.equal(one, other)


def test_a_state_dict_with_its_flags(tmp_path: Path) -> None:
    """Weights of improved-diffusion, without which and with which flags."""
    for door in ("openai_unet", "dit"):
        pytest.importorskip(f"diffusion_lit.interop.{door}")
    file = tmp_path / "cifar 10.pt"
    torch.save({"out.2.weight": torch.zeros(3, 8, 3, 3)}, file)
    with pytest.raises(ValueError, match=r"cifar 10\.flags"):
        load_denoiser(file)
    (tmp_path / "cifar 10.flags").write_text("--image_size 8 --num_channels 32 --channel_mult 1 --num_res_blocks 1")
    with pytest.raises(ValueError, match=r"cifar 10\.pt"):
        load_denoiser(file)
    (tmp_path / "cifar 10.flags").write_text("--wrong 1")
    with pytest.raises(ValueError, match=r"cifar 10\.flags: '--wrong' is not a flag"):
        load_denoiser(file)
    (tmp_path / "cifar 10.flags").write_text("--model DiT-B/7 --image-size 256")
    with pytest.raises(ValueError, match=r"cifar 10\.flags: .*DiT-B/7"):
        load_denoiser(file)


def test_a_pickle_is_refused_with_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there; its path is whole, as the recipe is run in another folder."""
    (tmp_path / "edm model.pkl").write_bytes(b"cos\nsystem\n(S'touch mark'\ntR.")
    with pytest.raises(ValueError, match="nothing in it was run") as refused:
        load_denoiser(tmp_path / "edm model.pkl")
    command = shlex.split(str(refused.value).splitlines()[-1])
    source, target = tmp_path / "edm model.pkl", tmp_path / "edm model.safetensors"
    assert command == ["PYTHONPATH=.", "python", nvlabs_pickle.__file__, str(source), str(target)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as again:
        published.files(Path(source.name))
    assert shlex.split(str(again.value).splitlines()[-1]) == command
    assert published.files(tmp_path / "other.pkl") is None


def test_altered_settings_are_a_users_mistake(pipeline: Path, tmp_path: Path) -> None:
    """Or right; in any of a folder's files, whatever stands there instead."""
    copied = tmp_path / "in"
    shutil.copytree(pipeline, copied)
    (copied / "diffusion_lit.json").write_text('{"weights": "ema", "step": 3, "class_names": null, "space": null}')
    files = sorted(copied.rglob("*.json"))
    assert len(files) == 4
    for file in files:
        whole = file.read_bytes()
        facts = json.loads(whole)

        def alter(generator: random.Random, file: Path = file, facts: Any = facts) -> None:
            file.write_text(json.dumps(altered(facts, generator, [*VALUES, 2**70, -(2.0**70)])))

        assert refusals(25, alter, lambda: load_denoiser(copied)) > 2, file
        file.write_bytes(whole)
    load_denoiser(copied)


def test_a_flag_that_begins_like_dit_s_is_not_dit_s(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    (tmp_path / "model.flags").write_text("--model_path model.pt --image_size 64")
    with pytest.raises(ValueError, match="--model_path' is not a flag of their network or process"):
        read_foreign(tmp_path / "model.pt")


def test_a_state_dict_has_tensors_by_name_alone(tmp_path: Path) -> None:
    file, weight = tmp_path / "model.pt", torch.zeros(1)
    for value in ([weight], {1: weight}, {"a": 3}, {"a": weight, "b": 3}):
        torch.save(value, file)
        with pytest.raises(ValueError, match=r"model\.pt should hold tensors by name alone"):
            read_state(file)
    torch.save({"a": weight}, file)
    save_file({"a": weight}, tmp_path / "model.safetensors")
    assert read_state(file) == read_state(tmp_path / "model.safetensors") == {"a": weight}
    for half in (torch.float16, torch.bfloat16):
        save_file({"a": weight.to(half)}, tmp_path / "half.safetensors")
        assert read_state(tmp_path / "half.safetensors")["a"].dtype == half
    torch.save({"a": weight.to(torch.int8)}, file)
    save_file({"a": weight.to(torch.int8)}, tmp_path / "model.safetensors")
    for quantized in (file, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match=rf"{quantized.name}: 'a' is of int8: quantized weights are not read"):
            read_state(quantized)


def test_weights_out_of_a_folder_of_diffusers_name_it(pipeline: Path) -> None:
    file = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ValueError, match="of a folder of diffusers: give the folder, ") as refused:
        load_denoiser(file)
    load_denoiser(str(refused.value).rpartition("folder, ")[2])


def test_what_a_pipeline_says_of_its_latents_and_classes(tmp_path: Path) -> None:
    for part, said, scale, shift in (
        ("vae", {}, 0.18215, 0.0),  # what diffusers assumes
        ("vae", {"scaling_factor": 0.5, "shift_factor": 0.1}, 0.5, 0.1),
        ("vqvae", {"scaling_factor": 2, "shift_factor": None}, 2.0, 0.0),
    ):
        folder = tmp_path / f"{part} {scale}" / part
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(said))
        space = diffusers_folder.latents(folder.parent)
        assert (space["autoencoder"], space["scale"], space["shift"]) == (str(folder), scale, shift)
    index, note = tmp_path / "model_index.json", tmp_path / "diffusion_lit.json"
    labels = {str(i): f"class {i}" for i in reversed(range(11))}
    named = [f"class {i}" for i in range(11)]
    assert diffusers_folder.class_names({}, note, {"id2label": labels}, index) == named
    assert diffusers_folder.class_names({"class_names": ["a"]}, note, {"id2label": labels}, index) == ["a"]
    assert diffusers_folder.class_names({"class_names": None}, note, {}, index) is None
    with pytest.raises(ValueError, match=r"model_index\.json: id2label must name the classes 0 to 1, each once"):
        diffusers_folder.class_names({}, note, {"id2label": {"0": "a", "2": "b"}}, index)


def test_a_config_json_of_another_project_is_no_folder_of_diffusers(tmp_path: Path) -> None:
    assert diffusers_folder.files(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert diffusers_folder.files(tmp_path) is None and diffusers_folder.files(tmp_path / "config.json") is None


def test_files_that_the_recipe_writes_are_known_by_their_metadata(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    assert published.files(file) is None
    save_file({"a": torch.zeros(1)}, file)
    assert published.files(file) is None
    save_file({"a": torch.zeros(1)}, file, {published.KEY: "{}"})
    assert published.files(file) == [file]
