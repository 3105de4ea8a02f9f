"""Latents of an autoencoder, prepared, trained on, drawn from: with the commands, as typed."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from diffusion_lit.data import MemmapData
from diffusion_lit.image import from_uint8
from diffusion_lit.prepared.manifest import MANIFEST, Manifest
from tests.launch import TINY, run_command


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


def test_latents_from_images_to_samples(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    network = write_autoencoder(tmp_path / "autoencoder")
    options = ("source=images", "resolution=16", "latents=autoencoder", "val_fraction=0.2")
    done = run_command("prepare", *options, "out=set", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.load(tmp_path / "set" / MANIFEST)
    assert (manifest.resolution, manifest.channels, manifest.encoding) == (8, 4, "raw")
    assert manifest.latents is not None
    assert (manifest.latents.scale, manifest.latents.shift, manifest.latents.factor) == (0.5, 0.1, 2)

    plain = run_command("prepare", "source=images", "resolution=16", "val_fraction=0.2", "out=pixels", cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    pixels, latents = (MemmapData(str(tmp_path / name)) for name in ("pixels", "set"))
    for data in (pixels, latents):
        data.setup()
    for split, stored in latents.splits.items():
        indices = list(range(len(stored)))
        images, labels = pixels.splits[split].fetch(indices)
        found, found_labels = stored.fetch(indices)
        with torch.no_grad():
            expected = network.encode(from_uint8(images)).latent_dist.mean
        assert found.dtype == torch.float16 and labels is not None and torch.equal(labels, found_labels)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected.half(), rtol=2e-3, atol=2e-3)

    again = run_command("prepare", *options, "out=again", cwd=tmp_path)
    assert again.returncode == 0
    assert Manifest.load(tmp_path / "again" / MANIFEST).content_hash == manifest.content_hash
    write_autoencoder(tmp_path / "other", seed=1)
    other = run_command("prepare", *options, "latents=other", "out=set", cwd=tmp_path)
    assert other.returncode == 1 and "overwrite=true" in other.stderr

    run = tmp_path / "run"
    trained = run_command(
        "train",
        *TINY,
        "data=memmap",
        "data.root=set",
        "data.batch_size=4",
        "sampler.clip=null",
        "callback.fid.num_samples=4",
        "trainer.max_steps=3",
        f"hydra.run.dir={run}",
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "fid/pixels_4_decoded" in (run / "metrics.csv").read_text()
    drawn = run_command(
        "sample",
        f"ckpt={run}",
        "num_samples=2",
        "sampler.num_steps=2",
        "sampler.clip=null",
        "format=npz",
        "out=o",
        cwd=tmp_path,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert np.load(tmp_path / "o" / "samples.npz")["arr_0"].shape == (2, 16, 16, 3)
    shown = run_command("inspect", "data.root=set", "out=i", cwd=tmp_path)
    assert shown.returncode == 0 and "latents of 4 x 8 x 8" in shown.stdout, shown.stderr
    refused = run_command("train", *TINY, "data=memmap", "data.root=set", "augmentation=flip", cwd=tmp_path)
    assert refused.returncode == 1 and "augmentation=none" in refused.stderr


def test_what_cannot_be_encoded_is_told_at_start(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    write_autoencoder(tmp_path / "autoencoder")
    cases = {
        ("latents=nowhere",): "nowhere",
        ("latents=images",): "config.json",
        ("latents=autoencoder", "resolution=15"): "15",
        ("latents=autoencoder", "encoding=png"): "encoding=png",
    }
    for options, words in cases.items():
        done = run_command("prepare", "source=images", "resolution=16", "out=set", *options, cwd=tmp_path)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert not list((tmp_path / "set").rglob("*.bin"))
