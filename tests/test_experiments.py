"""conf/experiment: what was published is what is composed, and every recipe takes its first steps."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from diffusion_lit.command_line.catalogue import members
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.preparation.build import build
from diffusion_lit.preparation.maker import Maker
from diffusion_lit.run.restore import INHERITED, restore_settings
from diffusion_lit.run.settings import plain_settings
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading
from tests.launch import TINY, config, train_in

NAMES = sorted(path.stem for path in (CONFIG_FOLDER / "experiment").glob("*.yaml"))

CIFAR = {"data.dataset": "CIFAR10", "data.resolution": 32, "weighting._target_": "UnitWeighting"}
UNET_32 = {"model.channels": 128, "model.channel_multipliers": [1, 2, 2, 2]}
ADAM = {"optimizer._target_": "Adam", "optimizer.betas": [0.9, 0.999]}
ADAMW = {"optimizer._target_": "AdamW", "optimizer.betas": [0.9, 0.999]}
COSINE = {"schedule._target_": "CosineSchedule", "schedule.s": 0.008, "schedule.clip_max": 0.999}
UNIFORM = {"density._target_": "UniformDensity"}

PUBLISHED: Mapping[str, dict[str, Any]] = {
    # Ho et al. 2020, appendix B; hojonathanho/diffusion, scripts/run_cifar.py and tpu_utils (average 0.9999)
    "ddpm_cifar10": CIFAR
    | UNET_32
    | ADAM
    | UNIFORM
    | {
        "schedule._target_": "LinearSchedule",
        "schedule.num_timesteps": 1000,
        "schedule.beta_min": 1e-4,
        "schedule.beta_max": 0.02,
        "parameterization._target_": "EpsParameterization",
        "loss._target_": "MSELoss",
        "augmentation._target_": "FlipAugmentation",
        "model.num_classes": None,
        "model.num_res_blocks": 2,
        "model.attention_resolutions": [16],
        "model.head_channels": None,
        "model.dropout": 0.1,
        "model.time_conditioning": "additive",
        "model.resampling": "conv_same",
        "model.norm_eps": 1e-6,
        "model.frequency_shift": 1,
        "model.learn_variance": False,
        "data.batch_size": 128,
        "optimizer.lr": 2e-4,
        "lr_schedule._target_": "WarmupLR",
        "lr_schedule.num_steps": 5000,
        "trainer.max_steps": 800_000,
        "trainer.gradient_clip_val": 1.0,
        "callback.ema.decay": 0.9999,
    },
    # openai/improved-diffusion, README "Unconditional CIFAR-10 with our L_hybrid", script_util.py, image_train.py
    "iddpm_cifar10": CIFAR
    | UNET_32
    | ADAMW
    | COSINE
    | UNIFORM
    | {
        "schedule.num_timesteps": 4000,
        "parameterization._target_": "EpsParameterization",
        "loss._target_": "HybridLoss",
        "loss.scale": 0.001,
        "augmentation._target_": "NoAugmentation",
        "model.num_classes": None,
        "model.num_res_blocks": 3,
        "model.attention_resolutions": [16, 8],
        "model.num_heads": 4,
        "model.time_scale": 0.25,
        "model.dropout": 0.3,
        "model.time_conditioning": "scale_shift",
        "model.resampling": "conv",
        "model.learn_variance": True,
        "data.batch_size": 128,
        "optimizer.lr": 1e-4,
        "optimizer.weight_decay": 0.0,
        "lr_schedule._target_": "ConstantLR",
        "trainer.max_steps": 500_000,
        "trainer.gradient_clip_val": None,
        "callback.ema.decay": 0.9999,
        "sampler.variance": "learned",
    },
    # Karras et al. 2022, table 7; NVlabs/edm, train.py --cond=1 --arch=ddpmpp, training_loop.py, loss.py;
    # generate.py --steps=18
    "edm_cifar10": CIFAR
    | ADAM
    | {
        "schedule._target_": "EDMSchedule",
        "schedule.sigma_min": 0.002,
        "schedule.sigma_max": 80.0,
        "schedule.rho": 7.0,
        "parameterization._target_": "EDMParameterization",
        "parameterization.sigma_data": 0.5,
        "density._target_": "LognormalDensity",
        "density.mean": -1.2,
        "density.std": 1.2,
        "loss._target_": "MSELoss",
        "augmentation._target_": "EDMAugmentation",
        "augmentation.p": 0.12,
        "label_dropout": 0.0,
        "model.num_classes": "auto",
        "model.channels": 128,
        "model.channel_multipliers": [2, 2, 2],
        "model.num_res_blocks": 4,
        "model.attention_resolutions": [16],
        "model.head_channels": None,
        "model.dropout": 0.13,
        "model._target_": "SongUNet",
        "model.noise_embedding": "positional",
        "model.resample_filter": [1, 1],
        "model.pyramid": False,
        "data.batch_size": 512,
        "optimizer.lr": 1e-3,
        "lr_schedule._target_": "WarmupLR",
        "lr_schedule.num_steps": 10_000_000 // 512,
        "lr_schedule.start": 0.0,
        "trainer.max_steps": None,
        "trainer.max_images": 200_000_000,
        "trainer.gradient_clip_val": None,
        "trainer.precision": "32-true",
        "callback.ema.decay": pytest.approx(0.5 ** (512 / 500_000), abs=1e-6),
        "sampler._target_": "HeunSampler",
        "sampler.num_steps": 18,
        "sampler.clip": None,
    },
    # Tong et al. 2024; atong01/conditional-flow-matching, examples/images/cifar10/train_cifar10.py --model icfm
    "flow_cifar10": CIFAR
    | UNET_32
    | ADAM
    | UNIFORM
    | {
        "schedule._target_": "FlowSchedule",
        "schedule.shift": 1.0,
        "parameterization._target_": "VelocityParameterization",
        "loss._target_": "MSELoss",
        "augmentation._target_": "FlipAugmentation",
        "model.num_classes": None,
        "model.num_res_blocks": 2,
        "model.attention_resolutions": [16],
        "model.head_channels": 64,
        "model.dropout": 0.1,
        "model.time_conditioning": "additive",
        "model.resampling": "conv",
        "data.batch_size": 128,
        "optimizer.lr": 2e-4,
        "lr_schedule._target_": "WarmupLR",
        "lr_schedule.num_steps": 5000,
        "lr_schedule.start": 0.0,
        "trainer.max_steps": 400_000,
        "trainer.gradient_clip_val": 1.0,
        "callback.ema.decay": 0.9999,
    },
    # Dhariwal & Nichol 2021, appendix I; openai/guided-diffusion, README "64x64 model", image_datasets.py (flips),
    # train_util.py
    "adm_imagenet64": ADAMW
    | COSINE
    | UNIFORM
    | {
        "schedule.num_timesteps": 1000,
        "parameterization._target_": "EpsParameterization",
        "loss._target_": "HybridLoss",
        "augmentation._target_": "FlipAugmentation",
        "label_dropout": 0.0,
        "model.num_classes": "auto",
        "model.channels": 192,
        "model.channel_multipliers": [1, 2, 3, 4],
        "model.num_res_blocks": 3,
        "model.attention_resolutions": [32, 16, 8],
        "model.head_channels": 64,
        "model.dropout": 0.1,
        "model.time_conditioning": "scale_shift",
        "model.resampling": "residual",
        "model.null_class": False,
        "model.learn_variance": True,
        "data.batch_size": 2048,
        "optimizer.lr": 3e-4,
        "optimizer.weight_decay": 0.0,
        "lr_schedule._target_": "ConstantLR",
        "trainer.max_steps": 540_000,
        "trainer.gradient_clip_val": None,
        "callback.ema.decay": 0.9999,
        "sampler.num_steps": 250,
        "sampler.variance": "learned",
    },
    # Karras et al. 2024, table 6; NVlabs/edm2, train_edm2.py --preset=edm2-img64-s, training_loop.py, networks_edm2.py,
    # phema.py; generate_images.py --steps=32
    "edm2_imagenet64": {
        "schedule._target_": "EDMSchedule",
        "schedule.sigma_min": 0.002,
        "schedule.sigma_max": 80.0,
        "schedule.rho": 7.0,
        "parameterization._target_": "EDMParameterization",
        "parameterization.sigma_data": 0.5,
        "density._target_": "LognormalDensity",
        "density.mean": -0.8,
        "density.std": 1.6,
        "weighting._target_": "UnitWeighting",
        "loss._target_": "UncertaintyLoss",
        "loss.channels": 128,
        "loss.unit_weight": True,
        "augmentation._target_": "NoAugmentation",
        "label_dropout": 0.0,
        "model._target_": "EDM2UNet",
        "model.num_classes": "auto",
        "model.channels": 192,
        "model.channel_multipliers": [1, 2, 3, 4],
        "model.num_res_blocks": 3,
        "model.attention_resolutions": [16, 8],
        "model.head_channels": 64,
        "model.dropout": 0.0,
        "model.label_balance": 0.5,
        "model.concat_balance": 0.5,
        "model.residual_balance": 0.3,
        "model.attention_balance": 0.3,
        "model.clip": 256.0,
        "data.batch_size": 2048,
        "optimizer._target_": "Adam",
        "optimizer.betas": [0.9, 0.99],
        "optimizer.lr": 0.01,
        "lr_schedule._target_": "InverseSqrtLR",
        "lr_schedule.num_steps": 4883,  # 10e6 / 2048
        "lr_schedule.start": 0.0,
        "lr_schedule.reference": 35_000,
        "trainer.max_steps": None,
        "trainer.max_images": 1024 << 20,
        "trainer.gradient_clip_val": None,
        "callback.ema": None,
        "callback.power_ema.std": 0.1,
        "callback.power_ema_short.std": 0.05,
        "callback.power_ema.dtype": "float16",
        "sampler._target_": "HeunSampler",
        "sampler.num_steps": 32,
        "sampler.clip": None,
    },
    # Rombach et al. 2022, table 12; CompVis/latent-diffusion, configs/latent-diffusion/lsun_churches-ldm-kl-8.yaml,
    # ddpm.py, ema.py
    "sd_latents": ADAMW
    | UNIFORM
    | {
        "schedule._target_": "ScaledLinearSchedule",
        "schedule.num_timesteps": 1000,
        "schedule.beta_min": 0.0015,
        "schedule.beta_max": 0.0155,
        "parameterization._target_": "EpsParameterization",
        "loss._target_": "MSELoss",
        "model.num_classes": None,
        "model.channels": 192,
        "model.channel_multipliers": [1, 2, 2, 4, 4],
        "model.num_res_blocks": 2,
        "model.attention_resolutions": [32, 16, 8, 4],
        "model.head_channels": 24,
        "model.dropout": 0.0,
        "model.time_conditioning": "scale_shift",
        "model.resampling": "residual",
        "data.batch_size": 96,
        "optimizer.lr": 5e-5,
        "optimizer.weight_decay": 0.01,
        "lr_schedule._target_": "WarmupLR",
        "lr_schedule.num_steps": 10_000,
        "lr_schedule.start": 1e-6,
        "trainer.max_steps": 500_000,
        "trainer.gradient_clip_val": None,
        "callback.ema.decay": 0.9999,
        "sampler.clip": None,
    },
}

SIZES = {  # [C, H, W], classes, numbers of the augment label; millions of parameters, as each file says
    "ddpm_cifar10": ((3, 32), None, 0, 35.7),
    "iddpm_cifar10": ((3, 32), None, 0, 52.5),
    "edm_cifar10": ((3, 32), 10, 9, 55.735),
    "flow_cifar10": ((3, 32), None, 0, 35.7),
    "adm_imagenet64": ((3, 64), 1000, 0, 295.9),
    "edm2_imagenet64": ((3, 64), 1000, 0, 280.2),
    "sd_latents": ((4, 32), None, 0, 295.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_what_was_published(name: str, tmp_path: Path) -> None:
    """The transcribed table against the composed configuration, and the network's size, without its memory."""
    cfg = config(tmp_path, f"experiment={name}", tiny=False)
    found = {key: OmegaConf.select(cfg, key, throw_on_missing=True) for key in PUBLISHED[name]}
    for key, value in found.items():
        if key.endswith("_target_"):
            found[key] = value.rpartition(".")[2]
        elif OmegaConf.is_list(value):
            found[key] = list(value)
    assert found == PUBLISHED[name]
    (channels, size), num_classes, augmentation_dim, millions = SIZES[name]
    cfg.model.update(resolution=size, image_channels=channels, num_classes=num_classes)
    if "augmentation_dim" in cfg.model:
        cfg.model.augmentation_dim = augmentation_dim
    with torch.device("meta"):
        network = instantiate(cfg.model)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_every_recipe_says_what_to_expect() -> None:
    """Result and protocol, images seen, cost, what differs, and whether it was reproduced here."""
    for name in NAMES:
        text = (CONFIG_FOLDER / "experiment" / f"{name}.yaml").read_text()
        comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        words = ["Images seen"]
        if name in PUBLISHED:
            words += ["Expected", "against the training set", "Cost", "iffer", "diffusion_lit.evaluate", "arXiv:"]
            words.append("by this project")
        assert [word for word in words if word not in comment] == [], name
    assert set(PUBLISHED) | {"digits", "mnist_quick", "own_images"} == set(NAMES)


@pytest.mark.parametrize("name", members("experiment"))
def test_a_recipe_that_is_cut_short_validates_at_its_end(name: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, f"experiment={name}", "trainer.max_steps=100", tiny=False)
    assert cfg.trainer.val_check_interval == 100


def test_digits_are_the_default(tmp_path: Path) -> None:
    assert config(tmp_path, "experiment=digits", tiny=False) == config(tmp_path, tiny=False)


def test_the_weights_of_an_experiment_begin_another_run(tmp_path: Path) -> None:
    """init=RUN takes what the experiment chose for the architecture; the rest is the new command line's."""
    cfg = config(tmp_path / "old", "experiment=flow_cifar10", tiny=False)
    recorded = {"config": plain_settings(cfg), "overrides": ["experiment=flow_cifar10"]}
    asked = config(tmp_path / "new", "schedule.shift=2", tiny=False)
    now, _ = restore_settings(recorded, "last.ckpt", asked, ["schedule.shift=2"], INHERITED)
    assert now.schedule == {"_target_": "diffusion_lit.schedule.FlowSchedule", "shift": 2}
    assert now.parameterization == cfg.parameterization and now.model.head_channels == 64
    assert now.optimizer == asked.optimizer and now.data == asked.data


def write_cifar(root: Path) -> None:
    """CIFAR-10's own files, of noise; checksums are not looked at."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {"data": generator.integers(0, 256, (40, 3072), np.uint8), "labels": [i % 10 for i in range(40)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))


def write_mnist(root: Path) -> None:
    """MNIST's own files, of noise."""
    generator = np.random.default_rng(0)
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count in {"train": 400, "t10k": 40}.items():
        images, labels = generator.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 28, 28))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            b"".join(n.to_bytes(4, "big") for n in (0x801, count)) + labels.tobytes()
        )


def write_colours(root: Path) -> None:
    """A folder of two classes of noise, 32 x 32, and the same prepared."""
    for i in range(60):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        path = root / "folder" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    reading = Reading(32, 3, "center_crop", "lanczos", 10**6)
    build(Maker(FolderSource(root / "folder", 0.2), reading, "raw", None, root / "prepared"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each recipe finds its data."""
    root = tmp_path_factory.mktemp("images")
    write_cifar(root)
    write_mnist(root)
    write_colours(root)
    return root


SLOW = ("adm_imagenet64", "edm2_imagenet64", "edm_cifar10", "own_images", "flow_cifar10", "iddpm_cifar10", "sd_latents")
"""Recipes that take no step by default that others do not; on real latents `test_latents` trains."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in sorted({*NAMES} - {"digits"})  # which are the default, as another test shows
    ],
)
def test_every_experiment_takes_two_steps(
    name: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published, but for a tiny network and batch."""
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = {
        "own_images": (f"data.root={images / 'folder'}", "data.resolution=16", "data.num_workers=0"),
        "adm_imagenet64": (f"data.root={images / 'prepared'}",),
        "edm2_imagenet64": (f"data.root={images / 'prepared'}",),
        "sd_latents": (f"data.root={images / 'prepared'}",),
    }.get(name, (f"data.root={images}", "data.download=false"))
    trainer = train_in(
        tmp_path / "run",
        f"experiment={name}",
        *data,
        "model.channels=8",
        "model.channel_multipliers=[1,1,1]",
        "model.num_res_blocks=1",
        "model.head_channels=null",
        "data.batch_size=4",
        "sampler.num_steps=2",
        "feature=pixels",
        "feature.max_resolution=4",
        "callback.fid.num_samples=4",
        "trainer.max_steps=2",
        "callback.sample_grid.columns=2",
        "trainer.val_check_interval=2",
        "trainer.limit_val_batches=1",
        "trainer.precision=32-true",
        tiny=[option for option in TINY if name != "edm2_imagenet64" or "num_groups" not in option],
    )
    assert trainer is not None and trainer.global_step == 2
