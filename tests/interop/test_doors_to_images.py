"""From what other projects publish to images, by the commands: pipelines of latents, EDM2; and weights in parts."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file
from torch import Tensor, nn

import diffusion_lit as dl
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser, parts_of
from diffusion_lit.condition import Condition
from diffusion_lit.evaluation.comparison import compare_results
from diffusion_lit.interop import nvlabs_pickle
from diffusion_lit.interop.edm2 import denoiser_settings, names, network_settings
from diffusion_lit.model.magnitude import force_unit_weights
from diffusion_lit.picture.image import to_uint8
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import HeunSampler
from tests.launch import TINY, train_in
from tests.networks import randomise

diffusers = pytest.importorskip("diffusers")

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 5}
SCHEDULER = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}


def sampled(ckpt: Path, out: Path, *overrides: str) -> tuple[np.ndarray, Any]:
    """Three images and their classes, by the `sample` command."""
    options = ("num_samples=3", "format=npz", "sampler.num_steps=4", *overrides)
    dl.sample([f"ckpt='{ckpt}'", f"out='{out}'", *options])
    with np.load(next(out.glob("*.npz"))) as file:
        return file["arr_0"], file.get("arr_1")


@pytest.fixture(scope="module")
def dit_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DiTPipeline with random weights and a small autoencoder."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **blocks).eval()
    transformer = diffusers.DiTTransformer2DModel(**DIT, out_channels=8).eval()
    randomise(transformer)
    for block in transformer.transformer_blocks:  # as in files converted from the public ones
        block.norm1.emb.load_state_dict(transformer.transformer_blocks[0].norm1.emb.state_dict())
    folder = tmp_path_factory.mktemp("dit") / "a = b"
    diffusers.DiTPipeline(transformer, vae, diffusers.DDIMScheduler(**SCHEDULER)).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    labels = {str(i): f"class {i}" for i in range(5)}  # as the published ones have, and save_pretrained does not write
    (folder / "model_index.json").write_text(json.dumps(index | {"id2label": labels}))
    return folder


@pytest.fixture(scope="module")
def ldm_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LDMPipeline with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ldm") / "ldm"
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vqvae = diffusers.VQModel(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, num_vq_embeddings=50, **blocks
    ).eval()
    scheduler = diffusers.DDIMScheduler(**SCHEDULER, prediction_type="v_prediction")  # eps multiplies rounding
    unet = diffusers.UNet2DModel(**UNET).eval()
    diffusers.LDMPipeline(vqvae, unet, scheduler).save_pretrained(folder)
    return folder


def write_other_decoder(pipeline: Path, out: Path) -> Path:
    """Its autoencoder, with the same encoder and another decoder."""
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL.from_pretrained(pipeline / "vae")
    for weight in vae.decoder.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    vae.save_pretrained(out)
    return out


def test_images_are_known_by_the_autoencoder_that_decodes_them(dit_pipeline: Path, tmp_path: Path) -> None:
    """Which no checksum of a model from elsewhere covers: theirs come with several."""
    other = write_other_decoder(dit_pipeline, tmp_path / "other")
    out = tmp_path / "out"
    first, _ = sampled(dit_pipeline, out, "sampler.clip=null")
    with pytest.raises(ValueError, match=r"other settings:\n  autoencoder: \{'sha256': '(.{64})'.* there, .* now"):
        sampled(dit_pipeline, out, "sampler.clip=null", f"autoencoder={other}")
    assert (sampled(dit_pipeline, tmp_path / "fresh", "sampler.clip=null", f"autoencoder={other}")[0] != first).any()
    real = tmp_path / "real.npz"
    np.savez(real, arr_0=np.random.RandomState(0).randint(0, 255, (20, 16, 16, 3), np.uint8))

    def fid(out: Path, *overrides: str) -> float:
        seen = ("feature=pixels", "feature.max_resolution=4", "metrics=[fid]", f"cache={tmp_path / 'cache'}")
        options = ("num_samples=10", "sampler.num_steps=2", "sampler.clip=null", f"against={real}", *overrides)
        return dl.evaluate([f"ckpt='{dit_pipeline}'", f"out={out}", *seen, *options]).figures["fid"]

    alone = fid(tmp_path / "alone", f"autoencoder={other}")
    assert fid(tmp_path / "both") != fid(tmp_path / "both", f"autoencoder={other}") == alone
    text, _ = compare_results(*(tmp_path / name / "evaluation.json" for name in ("both", "alone")))
    assert "generated.autoencoder" not in text
    fid(tmp_path / "both")
    text, _ = compare_results(*(tmp_path / name / "evaluation.json" for name in ("both", "alone")))
    assert "\n  generated.autoencoder.sha256: " in text


def by_their_scheduler(network: Callable[[Tensor, Tensor], Tensor], scheduler: Any) -> Tensor:
    """DDIM's four steps of diffusers, on our noise."""
    scheduler = diffusers.DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    x = (1 - scheduler.alphas_cumprod[scheduler.timesteps[0]]).sqrt() * ImageNoise(0, range(3), (4, 8, 8))()
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(network(x, t), t, x).prev_sample
    return x


def assert_same_pictures(images: np.ndarray, decoded: Tensor) -> None:
    expected = to_uint8(decoded).permute(0, 2, 3, 1).numpy()
    assert images.shape == expected.shape and images.std() > 5
    assert np.abs(images.astype(int) - expected).max() <= 1


def test_a_pipeline_of_dit_draws_its_images(dit_pipeline: Path, tmp_path: Path) -> None:
    """Whole, and by its network's folder, beside which are its scheduler, its autoencoder and its classes."""
    theirs = diffusers.DiTPipeline.from_pretrained(dit_pipeline)
    label = torch.arange(3)
    x = by_their_scheduler(
        lambda x, t: theirs.transformer(x, t.expand(3), class_labels=label).sample[:, :4], theirs.scheduler
    )
    with torch.no_grad():
        decoded = theirs.vae.decode(x / theirs.vae.config.scaling_factor).sample
    for ckpt in (dit_pipeline, dit_pipeline / "transformer"):
        out = tmp_path / ckpt.name
        images, labels = sampled(ckpt, out, "sampler=ddim", "sampler.clip=null")
        assert_same_pictures(images, decoded)
        assert labels.tolist() == [0, 1, 2] and dl.load(ckpt).class_names == [f"class {i}" for i in range(5)]


def test_a_pipeline_of_ldm_draws_its_images(ldm_pipeline: Path, tmp_path: Path) -> None:
    theirs = diffusers.LDMPipeline.from_pretrained(ldm_pipeline)
    x = by_their_scheduler(lambda x, t: theirs.unet(x, t).sample, theirs.scheduler)
    with torch.no_grad():
        decoded = theirs.vqvae.decode(x / theirs.vqvae.config.scaling_factor).sample
    assert_same_pictures(sampled(ldm_pipeline, tmp_path / "x", "sampler=ddim", "sampler.clip=null")[0], decoded)
    space = load_checkpoint(ldm_pipeline / "unet")["config"]["space"]
    assert space["autoencoder"] == str(ldm_pipeline.resolve() / "vqvae") and space["scale"] == 0.18215
    shutil.copytree(ldm_pipeline, tmp_path / "without", ignore=shutil.ignore_patterns("vqvae"))
    with pytest.raises(FileNotFoundError, match=r"autoencoder .*vqvae|vae does not exist; .*autoencoder=FOLDER"):
        sampled(tmp_path / "without", tmp_path / "y", "sampler=ddim", "sampler.clip=null")


@pytest.mark.parametrize("kind", ["DDIMPipeline", "PNDMPipeline", "StableDiffusionPipeline", "VQDiffusionPipeline"])
def test_pipelines_and_schedulers_by_name(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PNDM's model is a chain's; that nothing here draws as it does is said."""
    caplog.set_level("INFO")
    scheduler = diffusers.PNDMScheduler() if kind == "PNDMPipeline" else diffusers.DDIMScheduler()
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**UNET), diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    scheduler.save_pretrained(tmp_path / "scheduler")
    index = json.loads((tmp_path / "model_index.json").read_text()) | {"_class_name": kind}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    if kind not in ("DDIMPipeline", "PNDMPipeline"):
        with pytest.raises(ValueError, match=f"describes a '{kind}'; of these there is an equal: DDPM.*LDMPipeline"):
            load_denoiser(tmp_path)
        return
    load_denoiser(tmp_path)
    said = "PNDMScheduler draws cannot be repeated here" if kind == "PNDMPipeline" else "draws as sampler=ddim "
    assert said in caplog.text


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_parts_are_the_weights(safe: bool, tmp_path: Path) -> None:
    """As diffusers writes what is large; a part that is missing, elsewhere or another one is named."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**UNET)
    for size, folder in (("10GB", tmp_path / "one"), ("8KB", tmp_path / "parts")):
        unet.save_pretrained(folder, safe_serialization=safe, max_shard_size=size)
        diffusers.DDPMScheduler().save_pretrained(folder)
    one, parts = (load_denoiser(tmp_path / name)[0].state_dict() for name in ("one", "parts"))
    assert all(torch.equal(w, parts[name]) for name, w in one.items())
    folder, ending = tmp_path / "parts", "safetensors" if safe else "bin"
    shards = sorted(folder.glob(f"*-of-*.{ending}"))
    assert len(shards) > 2 and set(shards) < set(parts_of(folder))
    [index] = folder.glob("*.index.json")
    table = json.loads(index.read_text())
    weight, other = (min(name for name, file in table["weight_map"].items() if file == p.name) for p in shards[:2])
    outside = tmp_path / shards[0].name
    shutil.copy(shards[0], outside)
    for changes, message in (
        ({weight: f"../{outside.name}"}, f"'../{outside.name}' is not the name of a .{ending} file beside it"),
        ({weight: str(outside)}, "is not the name of a"),
        ({weight: "config.json"}, f"'config.json' is not the name of a .{ending} file"),
        ({weight: f"x.{ending}"}, f"x.{ending} is missing, with 1 weights by .*'{weight}'"),
        ({weight: shards[1].name}, f"has '{weight}'|lacks '{weight}'"),
        ({"more": shards[0].name}, "lacks 'more'"),
        ({other: 3}, "weight_map"),
    ):
        index.write_text(json.dumps(table | {"weight_map": table["weight_map"] | changes}))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_denoiser(folder)
    index.write_text(json.dumps(table | {"weight_map": {}}))
    with pytest.raises(ValueError, match="names no file"):
        load_denoiser(folder)
    index.write_text(json.dumps(table))
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=rf"{shards[1].name} is missing, with \d+ weights by"):
        load_denoiser(folder)
    shutil.copy(next((tmp_path / "one").glob(f"diffusion*.{ending}")), folder)
    with pytest.raises(ValueError, match="take out one of the two"):
        load_denoiser(folder)


class Precond(nn.Module):
    """What a pickle of EDM2 holds, as far as the recipe looks at it."""

    def __init__(self, state: dict[str, Tensor], config: dict[str, Any]) -> None:
        super().__init__()
        self.state, self.init_args, self.init_kwargs = state, (), config

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        return self.state


@pytest.mark.slow
def test_a_network_of_edm2_draws_and_begins_a_run(tmp_path: Path) -> None:
    """By the recipe's file, with the public names of its weights."""
    config = {"img_resolution": 8, "img_channels": 1, "label_dim": 10, "model_channels": 8, "channel_mult": [1, 2]}
    config |= {"num_blocks": 1, "attn_resolutions": [4], "channels_per_head": 8}
    torch.manual_seed(0)
    denoiser = instantiate({"_target_": "diffusion_lit.denoiser.Denoiser", **denoiser_settings(config)}).eval()
    randomise(denoiser, scale=0.5)
    ours = denoiser.network.state_dict()
    state = {f"logvar_{name}": torch.zeros(3) for name in ("fourier.freqs", "fourier.phases", "linear.weight")}
    for theirs, name in names(network_settings(config)):
        state[theirs] = ours[name].reshape(()) if theirs.endswith("gain") else ours[name]
    source, file = tmp_path / "edm2-img8-xs.pkl", tmp_path / "edm2 = xs.safetensors"
    source.write_bytes(pickle.dumps({"ema": Precond(state, config), "training_set_kwargs": {}}))
    nvlabs_pickle.convert(str(source), str(file))  # type: ignore[no-untyped-call]
    assert load_file(file).keys() == state.keys()

    images, labels = sampled(file, tmp_path / "x", "sampler=heun", "sampler.clip=null")
    expected = HeunSampler(4)(denoiser, ImageNoise(0, range(3), (1, 8, 8)), Condition(torch.arange(3)))
    assert_same_pictures(images, expected)
    assert labels.tolist() == [0, 1, 2]

    own = [option for option in TINY if not option.startswith("model.")]
    still = ("callback.fid=null", "callback.sample_grid=null", "trainer.max_steps=1", "optimizer.lr=1e-12")
    train_in(tmp_path / "run", *still, f"init='{file}'", tiny=own)
    begun = load_checkpoint(tmp_path / "run")
    assert begun["config"]["model"]["_target_"].endswith("EDM2UNet")
    assert begun["config"]["schedule"]["_target_"].endswith("EDMSchedule")
    force_unit_weights(denoiser)
    for name, w in denoiser.state_dict().items():
        torch.testing.assert_close(begun["state_dict"][f"denoiser.{name}"], w, rtol=0, atol=1e-5)
