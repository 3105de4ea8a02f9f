"""Latents: an autoencoder's own calls, and whole runs on them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from PIL import Image
from torch import Tensor

from diffusion_lit.autoencoder import PIXELS_AT_A_TIME, Autoencoder
from diffusion_lit.callback import FID
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.data import ArrayImages, ImageDataModule, Images
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import UniformDensity
from diffusion_lit.evaluation.extraction import describe
from diffusion_lit.evaluation.feature_folder import FeatureFolder
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.feature import Pixels
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.likelihood import ode_likelihood, variational_bound
from diffusion_lit.loss import HybridLoss, VLBLoss
from diffusion_lit.picture.grid import HEADER
from diffusion_lit.picture.image import from_uint8, to_uint8
from diffusion_lit.run.fine_tuning import load_weights
from diffusion_lit.run.resume import check_origin, find_origin
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.space import LatentSpace, PixelSpace, Space
from diffusion_lit.weighting import UnitWeighting
from tests.analytic import GaussianDenoiser, build, members
from tests.launch import config, run_forked, train_in
from tests.test_training import column

diffusers = pytest.importorskip("diffusers")

SCALE, SHIFT = 0.7, 0.25


def write_autoencoder(folder: Path, seed: int = 0, kind: str = "AutoencoderKL", **options: Any) -> Path:
    """A tiny autoencoder, untrained: images of 32 x 32 become latents of 8 x 8 with 4 channels."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"latent_channels": 4, "scaling_factor": SCALE}
    if kind == "AutoencoderTiny":
        settings |= {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
        settings |= {"num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1)}
    else:
        settings |= {"block_out_channels": (8, 8, 8), "norm_num_groups": 4, "sample_size": 32}
        settings |= {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    if kind == "AutoencoderKL":
        settings["shift_factor"] = SHIFT
    getattr(diffusers, kind)(**(settings | options)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_autoencoder(tmp_path_factory.mktemp("autoencoder"))


def pictures(num: int = 6, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, channels, 32, 32), generator=generator, dtype=torch.uint8)


def latent_space(folder: Path, **options: Any) -> LatentSpace:
    autoencoder = Autoencoder(folder)
    return LatentSpace(str(folder), autoencoder.scale, autoencoder.shift, **{"sha256": autoencoder.sha256, **options})


def test_features_of_decoded_images_are_known_by_the_decoder(folder: Path, tmp_path: Path) -> None:
    """Stable Diffusion's ft-ema and ft-mse have one encoder, so that the latents in a set are the same."""
    network = diffusers.AutoencoderKL.from_pretrained(folder)
    for weight in network.decoder.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    network.save_pretrained(tmp_path)
    spaces = [latent_space(folder), latent_space(tmp_path), latent_space(folder)]
    latents = [space.latents(pictures()) for space in spaces]
    assert latents[0].equal(latents[1])
    sets = [StoredImages(ArrayImages(x), space=space) for x, space in zip(latents, spaces, strict=True)]
    a, b, again = (FeatureFolder(tmp_path, describe(images, Pixels()), len(images)).path for images in sets)
    assert a == again != b
    stored = ArrayImages(pictures())
    assert StoredImages(stored, space=PixelSpace()).content == StoredImages(stored).content


def model_of(space: Space) -> Denoiser:
    denoiser = GaussianDenoiser(build("schedule", "linear"), 0.0, 0.5)
    denoiser.space = space
    return denoiser


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny", "VQModel"])
def test_encodes_and_decodes_as_diffusers_does(kind: str, tmp_path: Path) -> None:
    """The pipelines' own lines, `(latents - shift) * scale` and `latents / scale + shift`."""
    autoencoder = Autoencoder(write_autoencoder(tmp_path, kind=kind))
    theirs = getattr(diffusers, kind).from_pretrained(tmp_path).eval()
    shift = SHIFT if kind == "AutoencoderKL" else 0.0
    assert (autoencoder.factor, autoencoder.channels) == (4, 4)
    assert (autoencoder.scale, autoencoder.shift) == (SCALE, shift)

    images = pictures()
    latents = autoencoder.encode(images)
    assert latents.shape == (6, 4, 8, 8) and latents.dtype == torch.float32
    with torch.no_grad():
        encoded = theirs.encode(from_uint8(images))
        mean = encoded.latent_dist.mode() if kind == "AutoencoderKL" else encoded.latents
        x_0 = (mean - shift) * SCALE
        expected = to_uint8(theirs.decode(x_0 / SCALE + shift).sample)
    torch.testing.assert_close(latents, mean)
    space = latent_space(tmp_path)
    torch.testing.assert_close(space.encode(latents), x_0)
    assert (space.decode(x_0).int() - expected.int()).abs().max() <= 1  # a value in the middle may round either way
    assert (space.images(latents).int() - expected.int()).abs().max() <= 1
    assert expected.float().std() > 0


def test_half_precision_latents_become_float32(folder: Path) -> None:
    stored = Autoencoder(folder).encode(pictures()).half()
    x_0 = latent_space(folder).encode(stored)
    assert x_0.dtype == torch.float32
    expected = (np.asarray(stored, dtype=np.float64) - SHIFT) * SCALE
    np.testing.assert_allclose(x_0.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert not any(p.requires_grad for p in latent_space(folder).decoder.network.parameters())


def test_many_images_are_taken_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder, images = Autoencoder(folder), pictures(7)
    whole = autoencoder.encode(images)
    sizes: list[int] = []
    encode = autoencoder.network.encode
    monkeypatch.setattr(autoencoder.network, "encode", lambda x: (sizes.append(len(x)), encode(x))[1])
    monkeypatch.setattr("diffusion_lit.autoencoder.PIXELS_AT_A_TIME", 3 * 32 * 32)
    torch.testing.assert_close(autoencoder.encode(images), whole)
    assert sizes == [3, 3, 1] and PIXELS_AT_A_TIME == 8 * 256**2
    torch.testing.assert_close(autoencoder.decode(whole), latent_space(folder).decoder.decode(whole))


def test_grey_images_are_taken_as_colour_and_others_refused(folder: Path) -> None:
    autoencoder, grey = Autoencoder(folder), pictures(channels=1)
    assert torch.equal(autoencoder.encode(grey), autoencoder.encode(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match="3 channels, not 4"):
        autoencoder.encode(pictures(channels=4))
    with pytest.raises(ValueError, match=r"30 x 32: choose a resolution that is a multiple of 4"):
        autoencoder.encode(pictures()[:, :, :30])


def test_pixels_are_the_bytes_themselves() -> None:
    space, images = PixelSpace(), pictures()
    assert space.images(images) is images
    assert torch.equal(space.encode(images), from_uint8(images))
    assert torch.equal(space.decode(space.encode(images)), images)


def test_a_wrong_folder_says_what_is_wrong_with_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; .*autoencoder=FOLDER"):
        LatentSpace(str(tmp_path / "nowhere"), 1.0).check()
    write_autoencoder(tmp_path / "pipeline" / "vae")
    with pytest.raises(FileNotFoundError, match=r"its autoencoder is .*vae"):
        Autoencoder(tmp_path / "pipeline")
    for name, settings, words in (
        ("unet", {"_class_name": "UNet2DModel"}, "describes UNet2DModel; .* AutoencoderKL"),
        ("other", {"_class_name": "AutoencoderKL", "latents_mean": [0.0] * 4}, "latents_mean"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=words):
            Autoencoder(tmp_path / name)
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        Autoencoder(tmp_path / "unet")
    (tmp_path / "unet" / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"no diffusion_pytorch_model.safetensors"):
        Autoencoder(tmp_path / "unet")


def test_weights_that_are_damaged_or_lacking_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = write_autoencoder(tmp_path) / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_out.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights .* decoder\.conv_out\.weight"):
        Autoencoder(tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded"):
        Autoencoder(tmp_path)


def test_diffusers_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-lit\[diffusers\]'"):
        Autoencoder(folder)


def test_spaces_are_equal_if_their_numbers_mean_the_same(folder: Path) -> None:
    a, b = latent_space(folder), LatentSpace("elsewhere", SCALE, SHIFT, Autoencoder(folder).sha256)
    assert a == b and a != PixelSpace() and PixelSpace() == PixelSpace()
    assert a != LatentSpace(str(folder), 1.0, SHIFT, a.sha256) and a != latent_space(folder, sha256="0")
    with pytest.raises(ValueError, match="positive, got 0"):
        LatentSpace(str(folder), 0)


@pytest.mark.parametrize("name", members("sampler"))
def test_samplers_do_not_clip_latents(name: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"clip=1.0 would cut off latents.*sampler\.clip=null"):
        build("sampler", name).check(model_of(latent_space(folder)))
    build("sampler", name, clip=None).check(model_of(latent_space(folder)))


def test_what_is_about_bytes_is_refused(folder: Path) -> None:
    model, x_0 = model_of(latent_space(folder)), torch.zeros(1, 4, 8, 8)
    for loss in (VLBLoss(UniformDensity(), "small"), HybridLoss(UniformDensity(), UnitWeighting())):
        with pytest.raises(ValueError, match="latents have no such probability"):
            loss.check(model)
    for likelihood in (variational_bound, ode_likelihood):
        with pytest.raises(ValueError, match="latents have no such probability"):
            likelihood(model, x_0, lambda: torch.zeros_like(x_0))


def test_a_guide_is_of_the_same_space(folder: Path) -> None:
    latents, pixels = model_of(latent_space(folder)), model_of(PixelSpace())
    for model in (latents, pixels):
        model.image_shape = (4, 8, 8)
    assert GuidedDenoiser(latents, 2.0, latents).space is latents.space
    with pytest.raises(ValueError, match="another space"):
        GuidedDenoiser(latents, 2.0, pixels)


@dataclass(eq=False, repr=False)
class LatentImages(ImageDataModule):
    """Latents of noise in two classes, as float16."""

    folder: str

    resolution, channels, num_classes = 8, 4, 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.autoencoder = a = Autoencoder(self.folder)
        self.space = LatentSpace(self.folder, a.scale, a.shift, a.sha256)

    def load(self) -> dict[str, Images]:
        sizes = {"train": 20, "val": 12, "test": 4}
        latents = {name: self.autoencoder.encode(pictures(size, seed=size)).half() for name, size in sizes.items()}
        return {name: ArrayImages(stored, torch.arange(len(stored)) % 2) for name, stored in latents.items()}


ON_LATENTS = ("data._target_=tests.test_space.LatentImages", "data.batch_size=10", "sampler.clip=null")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on latents of an autoencoder in the run's folder."""
    folder = tmp_path_factory.mktemp("run")
    write_autoencoder(folder / "autoencoder")
    train_in(folder, *ON_LATENTS, f"+data.folder={folder / 'autoencoder'}", "trainer.max_steps=4")
    return folder


def test_a_run_on_latents_writes_pictures_and_says_what_it_measured(run: Path) -> None:
    with Image.open(run / "samples" / "step_0000004.png") as grid:
        assert grid.size == (2 * (64 + 2) + 2, HEADER + 64 + 2 + 2) and grid.mode == "RGB"  # 32 pixels, magnified twice
    assert sorted(column(run, "fid/pixels_21_decoded")) == [3, 4]
    checkpoint = load_checkpoint(run)
    assert not any(word in name for name in checkpoint["state_dict"] for word in ("autoencoder", "decoder", "space"))
    assert checkpoint["config"]["space"]["sha256"] == Autoencoder(run / "autoencoder").sha256
    assert (checkpoint["config"]["model"]["resolution"], checkpoint["config"]["model"]["image_channels"]) == (8, 4)


def test_the_reference_of_fid_is_the_decoded_validation_set(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(
        Pixels, "forward", lambda self, images: (seen.append(images), images.flatten(1)[:, :64].float())[1]
    )
    train_in(
        run / "again",
        *ON_LATENTS,
        f"+data.folder={run / 'autoencoder'}",
        "trainer.max_steps=1",
        "callback.sample_grid=null",
    )
    autoencoder = Autoencoder(run / "autoencoder")
    expected = autoencoder.decode(autoencoder.encode(pictures(12, seed=12)).half())
    assert torch.equal(torch.cat(seen)[:12], expected)


@pytest.mark.slow
def test_sample_and_plot_decode(run: Path, tmp_path: Path) -> None:
    options = (f"ckpt={run}", "sampler.num_steps=2", "sampler.clip=null", "num_samples=3", f"out={tmp_path}")
    done = run_forked("sample", *options, "format=[npz,png,grid]", "batch_size=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "samples.npz") as file:
        assert file["arr_0"].shape == (3, 32, 32, 3) and file["arr_0"].dtype == np.uint8
    with Image.open(tmp_path / "png" / "000002.png") as image:
        assert image.size == (32, 32)
    done = run_forked("plot", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "trajectory.gif") as animation:
        assert animation.size == (3 * (64 + 2) + 2, 64 + 2 + 2)
    assert (tmp_path / "trajectory.png").is_file()
    done = run_forked("sample", f"ckpt={run}", cwd=tmp_path)
    assert done.returncode == 1 and "sampler.clip=null" in done.stderr and "Traceback" not in done.stderr


def test_an_autoencoder_that_was_moved_can_be_named_and_no_other_is_taken(run: Path, tmp_path: Path) -> None:
    moved = (run / "autoencoder").rename(tmp_path / "moved")
    try:
        options = (f"ckpt={run}", "sampler.num_steps=1", "sampler.clip=null", "num_samples=1", f"out={tmp_path}")
        done = run_forked("sample", *options, cwd=tmp_path)
        assert done.returncode == 1 and "autoencoder does not exist" in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "grid.png").exists()
        done = run_forked("sample", *options, f"autoencoder={moved}", cwd=tmp_path)
        assert done.returncode == 0 and (tmp_path / "grid.png").is_file(), done.stderr
        write_autoencoder(tmp_path / "other", seed=1)
        done = run_forked("plot", *options, f"autoencoder={tmp_path / 'other'}", cwd=tmp_path)
        assert done.returncode == 1 and "not those that made the latents" in done.stderr
    finally:
        moved.rename(run / "autoencoder")


def test_a_run_resumes_with_the_autoencoder_elsewhere_but_not_with_other_latents(run: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path)
    checkpoint = load_checkpoint(run)["config"]
    for key in ("model", "schedule", "parameterization", "loss", "density", "space"):
        cfg[key] = checkpoint[key]
    cfg.space.autoencoder = "elsewhere"
    check_origin(find_origin(run), cfg, None)
    for key, value in {"scale": 2.0, "sha256": "0" * 64}.items():
        other = cfg.copy()
        other.space[key] = value
        with pytest.raises(ValueError, match=rf"space\.{key}"):
            check_origin(find_origin(run), other, None)


def test_a_run_that_begins_with_weights_of_another_scale_says_so(run: Path, tmp_path: Path) -> None:
    cfg, module = config(tmp_path), torch.nn.Module()
    recorded = load_checkpoint(run)["config"]
    for key in ("model", "schedule", "parameterization", "space"):
        cfg[key] = recorded[key]
    cfg.space = {**recorded["space"], "scale": 2.0, "autoencoder": "elsewhere", "sha256": None}
    module.denoiser = load_denoiser(run)[0]
    began, *remarks = load_weights(module, run, "ema", cfg)  # type: ignore[arg-type]
    assert "step 4" in began and remarks == [f"  space.scale: {SCALE} -> 2.0 (the weights were trained with the first)"]


def test_settings_that_do_not_suit_latents_are_refused_before_training(run: Path, tmp_path: Path) -> None:
    on_latents = (*ON_LATENTS, f"+data.folder={run / 'autoencoder'}")
    for options, words in {
        ("augmentation=flip",): r"FlipAugmentation is for images.*augmentation=none",
        ("sampler.clip=1.0",): r"sampler\.clip=null",
        ("autoencoder=nowhere",): "nowhere does not exist",
        ("loss=vlb", "loss.variance=small"): "loss=mse",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError, InstantiationException), match=words):
            train_in(tmp_path, *on_latents, *options)
    with pytest.raises(ValueError, match="does not fit the data"):
        train_in(tmp_path, "space={_target_: diffusion_lit.space.LatentSpace, autoencoder: x, scale: 1}")


def test_fid_in_pixels_keeps_its_name() -> None:
    assert FID(Pixels(), DDIMSampler(2), 10).metric_name + PixelSpace().suffix == "fid/pixels_10"


def test_an_autoencoder_for_pixels_is_refused(tmp_path: Path) -> None:
    train_in(tmp_path / "run", "trainer.max_steps=1", "callback.fid=null", "callback.sample_grid=null")
    denoiser, _ = load_denoiser(tmp_path / "run")
    assert denoiser.space == PixelSpace()
    with pytest.raises(ValueError, match="autoencoder=x would be ignored: this model works on pixels"):
        load_denoiser(tmp_path / "run", autoencoder="x")
    with pytest.raises(ValueError, match="autoencoder=x would be ignored"):
        train_in(tmp_path / "other", "autoencoder=x")
