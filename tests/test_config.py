"""Every file of conf/: it can be built, and a run with it takes its first steps."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.lr_schedule import LRSchedule
from diffusion_lit.schedule import CosineSchedule
from tests.launch import config
from tests.model.test_published_networks import PUBLISHED
from tests.repeats import slow_but

ALONE = ("schedule", "parameterization", "density", "weighting", "sampler", "augmentation")


def members(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


@pytest.mark.parametrize("group, name", [(group, name) for group in ALONE for name in members(group)])
def test_a_member_is_built_from_its_file_alone(group: str, name: str) -> None:
    assert type(instantiate(OmegaConf.load(CONFIG_FOLDER / group / f"{name}.yaml"))).__module__.startswith(
        f"diffusion_lit.{group}."
    )


@pytest.mark.parametrize("group", [*ALONE, "loss", "data", "feature"])
def test_each_file_has_a_class_and_each_class_a_file(group: str) -> None:
    """conf/GROUP/NAME.yaml and GROUP/NAME.py come in pairs; torchvision's three datasets share one class."""
    modules = {path.stem for path in (CONFIG_FOLDER / f"../src/diffusion_lit/{group}").glob("*.py")}
    if not modules:
        pytest.skip("installed without the checkout's layout")
    shared = {"__init__", "base", "discrete", "beta", "resample", "spacing", "walk"}
    shared |= {
        "batch",
        "computed_order",
        "computed_shard_order",
        "hub",
        "order",
        "prepared",
        "sequential",
        "sequential_module",
        "tar",
    }
    shared |= {"torchvision"}
    shared |= {
        "convnet",
        "degenerate",
        "precision",
        "reservoir",
        "resize",
        "shared",
        "trained",
        "vision_transformer",
        "weights",
    }
    named = set(members(group)) - {"mnist", "fashion_mnist", "cifar10"}
    assert modules - shared == named


def test_the_yaml_is_what_is_built() -> None:
    schedule = instantiate(OmegaConf.load(CONFIG_FOLDER / "schedule" / "cosine.yaml"), num_timesteps=50, clip_max=0.5)
    assert torch.equal(schedule.betas, CosineSchedule(50, clip_max=0.5).betas)
    assert float(schedule.betas[-1]) == 0.5


FAMILIES = ("base", "tiny", "dit_tiny", "dit_b", "edm2_xs", "ddpmpp", "ncsnpp")
"""A member or two of each; the others differ in size."""


@pytest.mark.parametrize("name", slow_but(FAMILIES, sorted({*members("model")} - {*PUBLISHED})))
def test_every_model_is_built_for_32_pixels(name: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, f"model={name}", "+data.resolution=32", tiny=False)
    facts = {"resolution": 32, "image_channels": 3, "num_classes": None, "augmentation_dim": 0}
    cfg.model.update({key: fact for key, fact in facts.items() if key in cfg.model})
    with torch.device("meta"):
        network = instantiate(cfg.model)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    claims = {"tiny": 1.114, "small": 7.28, "base": 35.75, "large": 115.5}
    claims |= {"ddpmpp": 55.73, "ncsnpp": 56.4}
    claims |= {"edm2_xs": 118.7, "edm2_s": 267.1, "edm2_m": 474.8}  # at 64 pixels, see test_edm2_unet
    claims |= {"edm2_l": 741.8, "edm2_xl": 1068.2, "edm2_xxl": 1453.9}
    claims |= {"dit_tiny": 1.270, "dit_s": 32.47, "dit_b": 129.53, "dit_l": 456.80, "dit_xl": 673.65}
    assert millions == pytest.approx(claims[name], rel=0.01)


@pytest.mark.parametrize("optimizer", members("optimizer"))
@pytest.mark.parametrize("lr_schedule", members("lr_schedule"))
def test_every_learning_rate_schedule_ends_where_it_says(optimizer: str, lr_schedule: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, f"optimizer={optimizer}", f"lr_schedule={lr_schedule}")
    weights = [torch.nn.Parameter(torch.zeros(1, 1))]
    chosen = instantiate(cfg.optimizer)(weights, **({"matrices": weights} if optimizer == "muon" else {}))
    schedule: LRSchedule = instantiate(cfg.lr_schedule)
    full = chosen.param_groups[0]["lr"]
    rates = [full * schedule.factor(step, step / 100_000) for step in range(0, 100_001, 50)]
    start, end = {
        "constant": (full, full),
        "warmup": (0.01 * full, full),
        "warmup_cosine": (0.01 * full, 0),
        "inverse_sqrt": (0.01 * full, full * (70_000 / 100_000) ** 0.5),
    }[lr_schedule]
    assert rates[0] == pytest.approx(start) and rates[-1] == pytest.approx(end, abs=1e-12)
    assert max(rates) == pytest.approx(full, rel=1e-3)


def test_the_model_takes_after_the_data_and_contradictions_are_refused(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    fit_model_to_data(cfg, instantiate(cfg.data))
    assert (cfg.model.resolution, cfg.model.image_channels, cfg.model.num_classes) == (8, 1, 10)
    for override, words in {"model.resolution=16": "resolution=16", "model.num_classes=5": "num_classes=5"}.items():
        cfg = config(tmp_path, override)
        with pytest.raises(ValueError, match=words):
            fit_model_to_data(cfg, instantiate(cfg.data))
    cfg = config(tmp_path, "model.num_classes=null")
    fit_model_to_data(cfg, instantiate(cfg.data))
    assert cfg.model.num_classes is None
