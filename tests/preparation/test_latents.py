"""Latents of an autoencoder, prepared, trained on, drawn from: with the commands, as typed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from PIL import Image

from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.autoencoder import Autoencoder
from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.command_line.shell import quote
from diffusion_lit.data import MemmapData
from diffusion_lit.interop import diffusers_folder
from diffusion_lit.picture.image import from_uint8
from diffusion_lit.preparation.build import build
from diffusion_lit.preparation.maker import Maker
from diffusion_lit.prepared.manifest import Manifest
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading
from diffusion_lit.training import train
from tests.launch import config, run_forked, train_in


def write_images(folder: Path) -> None:
    for i in range(12):
        path = folder / ("a", "b")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def write_autoencoder(folder: Path, seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    network.save_pretrained(folder)
    return network.eval()


def prepare(root: Path, out: str, latents: str | None = "autoencoder", resolution: int = 16) -> Manifest:
    source = FolderSource(root / "images", 0.2)
    reading = Reading(resolution, 3, "center_crop", "lanczos", 10**6)
    return build(Maker(source, reading, "raw", None if latents is None else str(root / latents), root / out))


BLOCKS = {"block_out_channels": (8, 8), "latent_channels": 4}
TINY = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
TINY |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
OF_CONV = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AutoencoderKL, BLOCKS | OF_CONV | {"norm_num_groups": 4}),
        (VQModel, BLOCKS | OF_CONV | {"norm_num_groups": 4, "num_vq_embeddings": 4}),
        (AutoencoderTiny, TINY),
    ],
)
def test_a_scale_that_is_not_written_is_diffusers_own(kind: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    """As in folders that are older than the key; and a door to a pipeline reads it alike."""
    torch.manual_seed(0)
    folder = tmp_path / "vae"
    kind(**settings).save_pretrained(folder)
    file = folder / "config.json"
    said = json.loads(file.read_text())
    del said["scaling_factor"]
    file.write_text(json.dumps(said))
    assert Autoencoder(folder).scale == kind.from_pretrained(folder).config.scaling_factor
    assert Autoencoder(folder).scale == diffusers_folder.latents(tmp_path)["scale"]
    for value in (None, "much"):
        file.write_text(json.dumps(said | {"scaling_factor": value}))
        with pytest.raises(ValueError, match=r"config\.json: scaling_factor must be float"):
            Autoencoder(folder)


def test_latents_are_the_autoencoder_s_own(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    network = write_autoencoder(tmp_path / "autoencoder")
    manifest = prepare(tmp_path, "set")
    assert (manifest.resolution, manifest.channels, manifest.encoding) == (8, 4, "raw")
    assert manifest.latents is not None
    assert (manifest.latents.scale, manifest.latents.shift, manifest.latents.factor) == (0.5, 0.1, 2)
    prepare(tmp_path, "pixels", latents=None)
    pixels, latents = (MemmapData(str(tmp_path / name)) for name in ("pixels", "set"))
    for data in (pixels, latents):
        data.setup()
    for split, stored in latents.splits.items():
        indices = list(range(len(stored)))
        images, labels = pixels.splits[split].fetch(indices)
        found, found_labels = stored.fetch(indices)
        with torch.no_grad():
            expected = network.encode(from_uint8(images)).latent_dist.mean
        assert found.dtype == torch.float16 and labels is not None
        assert found_labels is not None and torch.equal(labels, found_labels)
        torch.testing.assert_close(found, expected.half(), rtol=2e-3, atol=2e-3)

    assert prepare(tmp_path, "again").content_hash == manifest.content_hash
    write_autoencoder(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="overwrite=true"):
        prepare(tmp_path, "set", latents="other")


def test_images_that_are_encoded_in_training_are_the_prepared_latents(tmp_path: Path) -> None:
    """So a run may go on from one to the other: the model's shape and its space are the same."""
    write_images(tmp_path / "images")
    write_autoencoder(tmp_path / "autoencoder")
    folder = str(tmp_path / "autoencoder")
    prepare(tmp_path, "set")
    prepare(tmp_path, "pixels", latents=None)
    fitted = []
    for name, latents in (("set", "null"), ("pixels", folder)):
        cfg = config(tmp_path, "data=memmap", f"data.root={tmp_path / name}", f"data.latents={latents}")
        data = instantiate(cfg.data)
        data.setup()
        fit_model_to_data(cfg, data)
        stored, _ = data.splits["train"].fetch(list(range(len(data.splits["train"]))))
        fitted.append((cfg.model, cfg.space, data.space.encode(stored), data.space.images(stored), data.facts()))
    (model, space, x_0, images, _), (same_model, same_space, same_x_0, same_images, _) = fitted
    assert same_model == model and same_space == space and model.resolution == 8 and model.image_channels == 4
    torch.testing.assert_close(same_x_0, x_0, rtol=2e-3, atol=2e-3)
    assert (same_images.int() - images.int()).abs().max() <= 1
    with pytest.raises(ValueError, match="would encode what are latents already"):
        MemmapData(str(tmp_path / "set"), latents=folder)
    data = MemmapData(str(tmp_path / "pixels"), latents=folder)
    data.resolution = [16, 15]
    with pytest.raises(ValueError, match=r"16 x 15: choose a resolution that is a multiple of 2"):
        fit_model_to_data(config(tmp_path, "data=memmap"), data)


def test_an_autoencoder_that_was_moved_needs_one_setting(tmp_path: Path) -> None:
    """As the message says that a resume without it gives: autoencoder=FOLDER, whatever data.latents was."""
    write_images(tmp_path / "images")
    prepare(tmp_path, "pixels", latents=None)
    write_autoencoder(tmp_path / "old")
    latents = f"data.latents={tmp_path / 'old'}"
    short = ("callback.fid=null", "callback.sample_grid=null", "sampler.clip=null", "trainer.max_steps=1")
    train_in(tmp_path / "run", "data=memmap", f"data.root={tmp_path / 'pixels'}", latents, *short, "data.batch_size=4")
    moved = (tmp_path / "old").rename(tmp_path / "new place=1")
    again = [f"resume={quote(str(tmp_path / 'run'))}", "trainer.max_steps=2"]
    for given in (again, [*again, f"autoencoder={quote(str(moved))}"]):
        (tmp_path / "resumed").mkdir(exist_ok=True)
        cfg = config(tmp_path / "resumed", *given, tiny=False)
        if given is again:
            with pytest.raises((InstantiationException, FileNotFoundError), match="autoencoder=FOLDER"):
                train(cfg, given)
        else:
            train(cfg, given)
    checkpoint = load_checkpoint(tmp_path / "resumed")
    assert checkpoint["global_step"] == 2 and checkpoint["config"]["space"]["autoencoder"] == str(moved)


def test_from_prepared_latents_to_samples(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    write_autoencoder(tmp_path / "autoencoder")
    done = run_forked(
        "prepare", "source=images", "resolution=16", "latents=autoencoder", "val_fraction=0.2", "out=set", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    run, data = tmp_path / "run", (f"data.root={tmp_path / 'set'}", "data.batch_size=4", "model.head_channels=null")
    options = ("callback.fid.num_samples=4", "trainer.max_steps=3", "trainer.precision=32-true")
    train_in(run, "experiment=sd_latents", *data, *options, "callback.fid.every_n_steps=3")
    assert "fid/pixels_4_decoded" in (run / "metrics.csv").read_text()
    options = ("num_samples=2", "sampler.num_steps=2", "sampler.clip=null", "format=npz", "out=drawn")
    drawn = run_forked("sample", f"ckpt={run}", *options, cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert np.load(tmp_path / "drawn" / "samples.npz")["arr_0"].shape == (2, 16, 16, 3)
    shown = run_forked("inspect", "data.root=set", "out=sheet", cwd=tmp_path)
    assert shown.returncode == 0 and "latents of 4 x 8 x 8" in shown.stdout, shown.stderr
    with pytest.raises(InstantiationException, match="augmentation=none"):
        train_in(tmp_path / "refused", "data=memmap", *data, "sampler.clip=null", "augmentation=flip")


@pytest.mark.parametrize(
    ("latents", "resolution", "words"),
    [("nowhere", 16, "nowhere"), ("images", 16, r"config\.json"), ("autoencoder", 15, "resolution=15")],
)
def test_what_cannot_be_encoded_is_reported_at_start(tmp_path: Path, latents: str, resolution: int, words: str) -> None:
    write_images(tmp_path / "images")
    write_autoencoder(tmp_path / "autoencoder")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        prepare(tmp_path, "set", latents, resolution)
    assert not (tmp_path / "set").exists()
