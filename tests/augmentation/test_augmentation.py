"""What each augmentation draws, what the draws do to pictures, and that nothing but training images is augmented."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.plugins import HalfPrecision
from omegaconf import OmegaConf
from torch import Tensor

from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.augmentation import Augmentation, EDMAugmentation, FlipAugmentation, NoAugmentation
from diffusion_lit.augmentation.resample import SYM6
from diffusion_lit.callback import FID
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.data import Batch, DigitsData
from diffusion_lit.data.batch import AugmentedImages
from diffusion_lit.feature import Pixels
from diffusion_lit.model import UNet
from diffusion_lit.random import fold_in
from tests.launch import config, train_in
from tests.repeats import slow_but

NAMES = sorted(path.stem for path in (CONFIG_FOLDER / "augmentation").glob("*.yaml"))
NUMBERS = json.loads((Path(__file__).parents[1] / "reference" / "edm_augmentation.json").read_text())
COLUMNS = ("mirrored", "upside_down", "scale", "rotation", "stretch", "axis", "right", "down")


def built(name: str) -> Augmentation:
    return instantiate(OmegaConf.load(CONFIG_FOLDER / "augmentation" / f"{name}.yaml"))


def draws(augmentation: Augmentation, num_images: int, seed: int = 0) -> Tensor:
    return torch.stack([augmentation.draw(fold_in(seed, "test", i)) for i in range(num_images)])


def numbers(**settings: float) -> Tensor:
    """EDM's draws for one image, those not named being 0, [1, 8]."""
    return torch.tensor([[settings.get(name, 0.0) for name in COLUMNS]], dtype=torch.float64)


def pictures(num_images: int, height: int = 8, width: int = 8, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num_images, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def blob(size: int, x: float = 0.0, y: float = 0.0, wide: float = 3.0, high: float = 3.0) -> Tensor:
    """A smooth spot with its middle (x, y) pixels to the right of and below the centre, [1, 1, size, size]."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    column, row = torch.exp(-(((place - x) / wide) ** 2) / 2), torch.exp(-(((place - y) / high) ** 2) / 2)
    return (row[:, None] * column)[None, None]


@pytest.mark.parametrize("name", NAMES)
def test_draws_and_conditions_are_as_declared(name: str) -> None:
    augmentation = built(name)
    drawn = draws(augmentation, 6)
    assert drawn.dtype == torch.float32 and drawn.shape == (6, augmentation.num_draws)
    for height, width in ((8, 8), (5, 12)):
        x_0 = pictures(6, height, width).float()
        changed, condition = augmentation(x_0, drawn)
        assert changed.shape == x_0.shape and changed.dtype == torch.float32 and changed.isfinite().all()
        if augmentation.dim == 0:
            assert condition is None
        else:
            assert condition is not None and condition.shape == (6, augmentation.dim)
            assert condition.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_zeros_leave_an_image_as_it_is(name: str) -> None:
    """Flips move pixels and nothing else; EDM's filters rebuild the image to rounding."""
    augmentation, x_0 = built(name), pictures(4)
    same, condition = augmentation(x_0, torch.zeros(4, augmentation.num_draws, dtype=torch.float64))
    torch.testing.assert_close(same, x_0, rtol=0, atol=1e-10 if name == "edm" else 0)
    assert condition is None or not condition.any()
    single, _ = augmentation(x_0.float(), torch.zeros(4, augmentation.num_draws))
    torch.testing.assert_close(single, x_0.float(), rtol=0, atol=1e-4 if name == "edm" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    augmentation = EDMAugmentation(p=1.0) if name == "edm" else built(name)
    x_0, drawn = pictures(16), draws(augmentation, 16).double()
    together, conditions = augmentation(x_0, drawn)
    for i in range(16):
        alone, condition = augmentation(x_0[i : i + 1], drawn[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)
        if condition is not None and conditions is not None:
            torch.testing.assert_close(condition[0], conditions[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["edm", "flip"])
def test_draws_are_a_function_of_seed_epoch_and_index(name: str) -> None:
    augmentation = built(name)
    images = DigitsData()
    images.setup()
    split = images.splits["train"]
    whole = AugmentedImages(split, 3, augmentation).__getitems__([(2, i) for i in range(60)])
    assert whole.draws is not None and whole.draws.shape == (60, augmentation.num_draws)
    shuffled = AugmentedImages(split, 3, augmentation).__getitems__([(2, i) for i in reversed(range(60))])
    assert shuffled.draws is not None and torch.equal(shuffled.draws.flip(0), whole.draws)
    assert torch.equal(whole.images, split.fetch(list(range(60)))[0]), "stored pixels, not augmented ones"
    for seed, epoch in ((4, 2), (3, 1)):
        other = AugmentedImages(split, seed, augmentation).__getitems__([(epoch, i) for i in range(60)])
        assert other.draws is not None and not torch.equal(other.draws, whole.draws)


def test_workers_and_batches_change_no_draw() -> None:
    drawn: list[dict[int, Tensor]] = []
    for num_workers, batch_size in ((0, 64), (2, 64), (0, 50)):
        data = DigitsData(batch_size=batch_size, num_workers=num_workers, seed=1, augmentation=EDMAugmentation())
        data.setup()
        loader = data.train_dataloader()
        found: dict[int, Tensor] = {}
        for batch, addresses in zip(loader, loader.batch_sampler, strict=True):  # type: ignore[arg-type]
            assert batch.draws is not None
            found |= dict(zip([i for _, i in addresses], batch.draws, strict=True))
        drawn.append(found)
    for other in drawn[1:]:
        both = drawn[0].keys() & other.keys()
        assert len(both) > 200 and all(torch.equal(drawn[0][i], other[i]) for i in both)


@pytest.mark.parametrize("augmentation", [None, NoAugmentation()])
def test_nothing_is_drawn_without_an_augmentation(augmentation: Augmentation | None) -> None:
    data = DigitsData(augmentation=augmentation)
    data.setup()
    assert next(iter(data.train_dataloader())).draws is None


def test_evaluation_images_are_never_augmented() -> None:
    """What validation, testing and FID read is what is stored, in order, and nothing is drawn."""
    data = DigitsData(augmentation=EDMAugmentation(p=1.0))
    data.setup()
    for split in ("val", "test"):
        batches: list[Batch] = list(data.evaluation_loader(split))
        assert all(batch.draws is None for batch in batches)
        stored, _ = data.splits[split].fetch(list(range(len(data.splits[split]))))
        assert torch.equal(torch.cat([batch.images for batch in batches]), stored)


# Flips.


def test_a_flip_exchanges_left_and_right() -> None:
    x_0 = pictures(2)
    changed, _ = FlipAugmentation()(x_0, torch.tensor([[1.0], [0.0]]))
    assert torch.equal(changed[0], x_0[0].flip(-1)) and torch.equal(changed[1], x_0[1])


def test_half_are_mirrored() -> None:
    mirrored = draws(FlipAugmentation(), 2000)
    assert set(mirrored.flatten().tolist()) == {0.0, 1.0}
    assert abs(float(mirrored.mean()) - 0.5) < 5 * 0.5 / 2000**0.5  # 5 standard errors


# EDM's pipeline.


def test_the_filter_is_the_symlet() -> None:
    """Orthogonal to its even shifts, of sum sqrt(2), with six vanishing moments (Daubechies 1992, chapter 6)."""
    h = torch.tensor(SYM6, dtype=torch.float64)
    assert float(h.sum()) == pytest.approx(math.sqrt(2), abs=1e-10)
    for shift in range(6):
        product = float((h[2 * shift :] * h[: len(h) - 2 * shift]).sum())
        assert product == pytest.approx(1.0 if shift == 0 else 0.0, abs=1e-10)
    k = torch.arange(12, dtype=torch.float64) - 5.5
    for power in range(6):
        assert float(((-1) ** torch.arange(12) * k**power * h).sum()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("i", range(len(NUMBERS["draws"])))
def test_an_image_is_what_the_published_code_makes_of_it(i: int) -> None:
    """tests/reference/README.md says how it was run. Its filter's coefficients are float32, hence 1e-6."""
    x_0 = torch.tensor(NUMBERS["levels"][i : i + 1], dtype=torch.float64) / 127.5 - 1
    changed, condition = EDMAugmentation()(x_0, torch.tensor(NUMBERS["draws"][i : i + 1], dtype=torch.float64))
    expected = torch.tensor(NUMBERS["images"][i : i + 1], dtype=torch.float64)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
    assert condition is not None
    told = torch.tensor(NUMBERS["condition"][i : i + 1], dtype=torch.float64)
    torch.testing.assert_close(condition, told, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mirrored, upside_down", [(0, 1), (1, 0), (1, 1)])
def test_edm_mirrors(mirrored: int, upside_down: int) -> None:
    x_0 = pictures(1)
    dims = [dim for dim, wanted in ((-1, mirrored), (-2, upside_down)) if wanted]
    changed, _ = EDMAugmentation()(x_0, numbers(mirrored=mirrored, upside_down=upside_down))
    torch.testing.assert_close(changed, x_0.flip(dims), rtol=0, atol=1e-10)


@pytest.mark.parametrize("right, down", [(2, 0), (0, -3), (-1, 2)])
def test_edm_translates_by_pixels(right: int, down: int) -> None:
    """Whole pixels are moved to the right and down; what comes in is the mirror image."""
    x_0 = pictures(1, 16, 16)
    z = numbers(right=right / (0.125 * 16), down=down / (0.125 * 16))
    changed, _ = EDMAugmentation()(x_0, z)
    mirrored = torch.nn.functional.pad(x_0, [3, 3, 3, 3], mode="reflect")
    expected = mirrored[:, :, 3 - down : 19 - down, 3 - right : 19 - right]
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_edm_turns_counter_clockwise(quarters: int) -> None:
    """The filter's middle lies 0.05 pixels beside the pixel in x and y, and is turned too: 0.14 at the most."""
    x_0 = blob(32, x=6, y=-4, wide=3, high=4)
    changed, condition = EDMAugmentation()(x_0, numbers(rotation=quarters * math.pi / 2))
    torch.testing.assert_close(
        changed, torch.rot90(x_0, quarters, (2, 3)), rtol=0, atol=0.14 * 0.61 / 3
    )  # its steepest slope
    assert condition is not None
    torch.testing.assert_close(
        condition[0, 3:5] + torch.tensor([1.0, 0.0]),
        torch.tensor([math.cos(quarters * math.pi / 2), math.sin(quarters * math.pi / 2)], dtype=torch.float64),
    )


@pytest.mark.parametrize("power", [-1, 1])
def test_edm_scales_about_the_centre(power: int) -> None:
    """z = 5 is a factor of 2: a spot is twice as large, and twice as far from the middle."""
    changed, _ = EDMAugmentation()(blob(64, 4, -2, 4, 4), numbers(scale=5 * power))
    factor = 2.0**power
    expected = blob(64, 4 * factor, -2 * factor, 4 * factor, 4 * factor)
    torch.testing.assert_close(changed[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], rtol=0, atol=2e-2)


@pytest.mark.parametrize("axis", [0.0, math.pi / 2, math.pi])
def test_edm_stretches_along_an_axis(axis: float) -> None:
    """z = 2.5 is a factor of sqrt(2) along the axis, and its inverse across it."""
    changed, condition = EDMAugmentation()(blob(64, wide=5, high=5), numbers(stretch=2.5, axis=axis))
    sizes = (5 * 2**0.5, 5 / 2**0.5)
    wide, high = sizes[::-1] if axis == math.pi / 2 else sizes
    torch.testing.assert_close(changed, blob(64, wide=wide, high=high), rtol=0, atol=1e-2)
    assert condition is not None
    told = torch.tensor([2.5 * math.cos(axis), 2.5 * math.sin(axis)], dtype=torch.float64)
    torch.testing.assert_close(condition[0, 5:7], told)


def test_edm_draws_as_often_and_as_widely_as_it_says() -> None:
    p, n = 0.3, 10_000
    drawn = dict(zip(COLUMNS, draws(EDMAugmentation(p=p), n).double().unbind(1), strict=True))
    shares = {"mirrored": 0.5, "upside_down": p / 2, "scale": p, "rotation": p, "stretch": p, "axis": p / 2, "right": p}
    for name, share in shares.items():
        assert abs(float((drawn[name] != 0).double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / n), name
    assert torch.equal(drawn["right"] != 0, drawn["down"] != 0)
    assert not ((drawn["axis"] != 0) & (drawn["stretch"] == 0)).any()
    deviations = dict.fromkeys(("scale", "stretch", "right", "down"), 1.0)
    deviations |= dict.fromkeys(("rotation", "axis"), math.pi / 3**0.5)
    for name, deviation in deviations.items():
        happened = drawn[name][drawn[name] != 0]
        assert abs(float(happened.mean())) < 5 * deviation / len(happened) ** 0.5, name
        assert abs(float(happened.std()) / deviation - 1) < 5 / (2 * len(happened)) ** 0.5, name
    both = ((drawn["scale"] != 0) & (drawn["rotation"] != 0)).double().mean()
    assert abs(float(both) - p**2) < 5 * math.sqrt(p**2 * (1 - p**2) / n), "independent"


def test_with_no_probability_only_left_and_right_are_exchanged() -> None:
    drawn = draws(EDMAugmentation(p=0.0), 100)
    assert not drawn[:, 1:].any() and 20 < int(drawn[:, 0].sum()) < 80


@pytest.mark.parametrize(
    "settings", [{"p": -0.1}, {"p": 1.1}, {"scale_std": -1}, {"stretch_std": -1}, {"translation_std": -1}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    [(name, value)] = settings.items()
    with pytest.raises(ValueError, match=rf"augmentation\.{name} .* {value}"):
        EDMAugmentation(**settings)


def test_reduced_precision_of_the_network_does_not_reach_the_images() -> None:
    x_0, drawn = pictures(4).float(), draws(EDMAugmentation(p=1.0), 4)
    expected, told = EDMAugmentation()(x_0, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        changed, condition = EDMAugmentation()(x_0, drawn)
    assert torch.equal(changed, expected)
    assert condition is not None and told is not None and torch.equal(condition, told)


@pytest.mark.parametrize("size", [32, 256])
def test_half_precision_moves_no_pixel(size: int) -> None:
    """Draws as `bf16-true` hands them over, its default dtype too: images and conditions are float32's.

    An untouched image is itself, and a moved one is where float64 puts it; in bfloat16 positions are off by pixels.
    """
    plugin, x_0 = HalfPrecision("bf16-true"), blob(size, 3.3, -2.1).float()
    moved = numbers(scale=0.7, rotation=2.1, stretch=-0.6, axis=0.9, right=0.31, down=-0.17).bfloat16()
    for drawn in (torch.zeros_like(moved), moved):
        expected, told = EDMAugmentation()(x_0.double(), drawn.double())
        with plugin.forward_context():
            changed, condition = EDMAugmentation()(x_0, drawn)
        assert changed.dtype == torch.float32 and condition is not None and condition.dtype == torch.float32
        torch.testing.assert_close(changed.double(), expected, rtol=0, atol=1e-4)
        assert told is not None
        torch.testing.assert_close(condition.double(), told, rtol=0, atol=1e-6)
    low, _ = EDMAugmentation()(x_0.bfloat16(), moved)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), expected, rtol=0, atol=0.01)  # of the image's own rounding


# The network.


def network(augmentation_dim: int) -> UNet:
    torch.manual_seed(0)
    net = UNet(8, 1, 8, (1, 2), 1, (4,), num_groups=4, augmentation_dim=augmentation_dim)
    for parameter in net.parameters():  # its last layers begin at zero
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def test_the_network_hears_of_the_augmentation_and_none_is_zeros() -> None:
    net, x, c_noise = network(9), torch.randn(3, 1, 8, 8), torch.rand(3)
    told, nothing = Condition(augment_label=torch.randn(3, 9)), Condition(augment_label=torch.zeros(3, 9))
    with torch.no_grad():
        plain = net(x, c_noise, UNCONDITIONAL)
        assert torch.equal(plain, net(x, c_noise, nothing))
        assert (net(x, c_noise, told) - plain).abs().amax((1, 2, 3)).min() > 1e-3
    half = network(9).bfloat16()
    assert half(x, c_noise, told).dtype == torch.bfloat16


def test_a_network_without_has_no_parameters_for_it() -> None:
    plain, told = network(0), network(9)
    extra = set(told.state_dict()) - set(plain.state_dict())
    assert extra == {"augmentation.weight"} and set(plain.state_dict()) <= set(told.state_dict())
    assert told.state_dict()["augmentation.weight"].shape == (32, 9)


@pytest.mark.parametrize("name, dim", [("none", 0), ("flip", 0), ("edm", 9)])
def test_the_model_takes_after_the_augmentation(name: str, dim: int, tmp_path: Path) -> None:
    cfg = config(tmp_path, f"augmentation={name}")
    fit_model_to_data(cfg, instantiate(cfg.data))
    assert cfg.model.augmentation_dim == dim
    cfg = config(tmp_path, f"augmentation={name}", "model.augmentation_dim=5")
    with pytest.raises(ValueError, match=rf"model\.augmentation_dim=5 .* is {dim}"):
        fit_model_to_data(cfg, instantiate(cfg.data))


def test_a_network_without_an_augment_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstantiationException, match=r"9 numbers .* takes 0: .* augmentation=flip or none"):
        train_in(tmp_path, "augmentation=edm", "~model.augmentation_dim")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("override", ["~data.augmentation", "data.augmentation=null"])
def test_an_augmentation_that_the_data_would_ignore_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DigitsData augments by .*NoAugmentation.* would ignore .*FlipAugmentation"):
        train_in(tmp_path, "augmentation=flip", override)


# Whole runs.

QUICK = ("callback.fid=null", "callback.sample_grid=null", "callback.best_checkpoint=null")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of a run without augmentation."""
    folder = tmp_path_factory.mktemp("plain")
    train_in(folder, "trainer.max_steps=3", *QUICK)
    return load_checkpoint(folder)


@pytest.mark.parametrize("name", slow_but(("edm",), ("edm", "flip")))
def test_a_run_trains_and_resumes_to_the_bit(name: str, plain: dict[str, Any], tmp_path: Path) -> None:
    options = (f"augmentation={name}", *QUICK)
    train_in(tmp_path / "whole", "trainer.max_steps=3", *options)
    train_in(tmp_path / "a", "trainer.max_steps=1", *options)
    train_in(tmp_path / "b", "trainer.max_steps=3", f"resume={tmp_path / 'a'}", *options)
    whole, resumed = (load_checkpoint(tmp_path / run) for run in ("whole", "b"))
    for key, other in product(("state_dict", "ema"), (resumed, plain)):
        same = [torch.equal(w, other[key][name]) for name, w in whole[key].items() if name in other[key]]
        assert all(same) == (other is resumed), "and augmentation changed something"
    told = [name for name in whole["state_dict"] if name.endswith("augmentation.weight")]
    assert len(told) == (name == "edm")


def test_training_moves_the_condition_and_samplers_never_give_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train_in(tmp_path, "augmentation=edm", "augmentation.p=1.0", "trainer.max_steps=3", *QUICK)
    denoiser, checkpoint = load_denoiser(tmp_path, "raw")
    weight = checkpoint["state_dict"]["denoiser.network.augmentation.weight"]
    fresh: Any = instantiate(OmegaConf.create(checkpoint["config"]).model)
    assert weight.shape == fresh.augmentation.weight.shape
    x_t, t = torch.randn(4, 1, 8, 8), torch.full((4, 1, 1, 1), 0.5)
    told, nothing = Condition(augment_label=torch.ones(4, 9)), Condition(augment_label=torch.zeros(4, 9))
    with torch.no_grad():
        plain, zeros = denoiser(x_t, t), denoiser(x_t, t, nothing)
        assert torch.equal(plain.x_0, zeros.x_0)
        assert not torch.equal(denoiser(x_t, t, told).x_0, plain.x_0)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bf16_trains_with_a_condition(precision: str, tmp_path: Path) -> None:
    trainer = train_in(tmp_path, "augmentation=edm", f"trainer.precision={precision}", "trainer.max_steps=2", *QUICK)
    assert trainer.global_step == 2


def test_fid_compares_with_images_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the metric is given as real, in a run whose training images are all augmented."""
    seen: list[Tensor] = []
    features = Pixels.features

    def witness(self: Pixels, images: Tensor) -> Tensor:
        seen.append(images)
        return features(self, images)

    monkeypatch.setattr(Pixels, "features", witness)
    trainer = train_in(tmp_path, "augmentation=edm", "augmentation.p=1.0", "trainer.max_steps=1")
    assert any(isinstance(callback, FID) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    data = DigitsData()
    data.setup()
    assert torch.equal(seen[0], data.splits["val"].fetch(list(range(12)))[0])


def test_a_run_from_before_an_option_existed_had_its_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_in(tmp_path / "a", "trainer.max_steps=2", *QUICK)
    path = tmp_path / "a" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["config"]["model"]["augmentation_dim"]
    torch.save(checkpoint, path)
    load_denoiser(tmp_path / "a")
    trainer = train_in(tmp_path / "b", "trainer.max_steps=4", f"resume={tmp_path / 'a'}", *QUICK)
    assert trainer.global_step == 4 and "the data is not what" not in caplog.text
