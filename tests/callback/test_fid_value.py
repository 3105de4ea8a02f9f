"""The figure that the FID callback logs, against the Frechet distance computed by numpy and scipy."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion_lit.callback import FID, LastCheckpoint
from diffusion_lit.data import ArrayImages, ImageDataModule, Images
from diffusion_lit.evaluation import drawn_features
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.feature import Pixels
from diffusion_lit.feature.shared import instantiate_sharing
from diffusion_lit.metrics import FeatureSet, FrechetDistance, KernelDistance, NearestNeighbour, Sets
from diffusion_lit.module import DiffusionModule
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.schedule import CosineSchedule
from diffusion_lit.space import PixelSpace
from tests.launch import config, train_in

NUM_REAL, NUM_SAMPLES = 150, 130
SHAPE = (3, 4, 4)


def frechet_distance(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    """|m - n|^2 + tr(S + R - 2 (S R)^(1/2)) for the means and unbiased covariances of features [N, d]."""
    covariance, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(covariance @ other).real
    return float(np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(covariance + other - 2 * root))


def correlated_images(num_images: int, seed: int, mean: float, spread: float) -> Tensor:
    """uint8 images whose pixels depend on each other, so that the covariances do not commute."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(48, 48)) / 48**0.5
    x = mean + spread * rng.normal(size=(num_images, 48)) @ mixing
    return torch.from_numpy(np.clip(np.rint(x), 0, 255).astype(np.uint8)).view(num_images, *SHAPE)


REAL = correlated_images(NUM_REAL, 1, mean=120, spread=30)
FAKE = correlated_images(NUM_SAMPLES, 2, mean=135, spread=20)


def pixel_features(images: Tensor) -> NDArray[np.float64]:
    return images.reshape(len(images), -1).double().numpy() / 255


class Data(ImageDataModule):
    """Validation images in batches of 40, the last one smaller."""

    resolution, channels, num_classes = 4, 3, None

    def load(self) -> dict[str, Images]:
        return {"val": ArrayImages(REAL)}


class Module(DiffusionModule):
    """Only what the callback asks a module for: the images come from elsewhere."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.denoiser = SimpleNamespace(image_shape=SHAPE, num_classes=None, space=PixelSpace())  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


def trainer_of(data: ImageDataModule, logged: list[tuple[dict[str, float], int]]) -> Any:
    connector = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))
    return SimpleNamespace(
        global_step=7,
        global_rank=0,
        world_size=1,
        is_global_zero=True,
        callbacks=[],
        callback_metrics={},
        _logger_connector=connector,
        datamodule=data,
        strategy=SimpleNamespace(broadcast=lambda figures: figures),
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> tuple[Data, list[int]]:
    """Data, and the indices of the images that the callback has asked to generate."""
    asked: list[int] = []

    def generate(denoiser: object, sampler: object, indices: range, *_: object, on_step: Any = None) -> Tensor:
        asked.extend(indices)
        if on_step is not None:
            on_step(None, FAKE[list(indices)])
        return FAKE[list(indices)]

    monkeypatch.setattr("diffusion_lit.evaluation.in_training.generate", generate)
    data = Data(batch_size=40)
    data.setup()
    return data, asked


class Witness(LastCheckpoint):
    """Counts how often a signal would be answered."""

    answers = 0

    def answer(self, now: bool = False) -> None:
        self.answers += 1


@contextmanager
def counting(name: str, done: Counter[str]) -> Iterator[Any]:
    """Work of which it is kept how much is done."""
    yield SimpleNamespace(advance=lambda count: done.update({name: count}))


def test_the_logged_figure_is_the_frechet_distance(
    measured: tuple[Data, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, asked = measured
    logged: list[tuple[dict[str, float], int]] = []
    trainer = trainer_of(data, logged)
    callback = FID(Pixels(), DDIMSampler(2), num_samples=NUM_SAMPLES, batch_size=50)
    assert not callback.extractor.training
    expected = frechet_distance(pixel_features(REAL), pixel_features(FAKE))
    trainer.callbacks = [witness := Witness("unused", every_n_steps=1)]
    done: Counter[str] = Counter()
    monkeypatch.setattr(
        "diffusion_lit.callback.fid.progress", lambda name, total, unit: counting(f"{total} {name}", done)
    )
    for answers in (4 + 3, 4 + 3 + 3):  # batches; the second time with the real features kept
        callback.measure(trainer, Module())
        assert witness.answers == answers
        assert done == {f"{NUM_REAL} real images": NUM_REAL}
        assert float(trainer.callback_metrics[f"fid/pixels_{NUM_SAMPLES}"]) == pytest.approx(expected, rel=1e-5)
    assert asked == [*range(NUM_SAMPLES)] * 2, "all images, each once, the last batch being smaller"
    assert logged == [({f"fid/pixels_{NUM_SAMPLES}": pytest.approx(expected, rel=1e-5)}, 7)] * 2


def test_ranks_share_the_images_and_all_have_their_features_in_order(
    measured: tuple[Data, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 images over 3 ranks, of which one has more than the others."""
    _, asked = measured
    shares: list[Tensor] = []

    def features() -> Tensor:
        return drawn_features(Module().denoiser, DDIMSampler(2), Pixels(), NUM_SAMPLES, None, batch_size=20).features

    def gather(own: Tensor) -> Tensor:
        shares.append(own)
        return torch.cat(shares[:3] if len(shares) > 3 else [own] * 3)

    monkeypatch.setattr("diffusion_lit.distributed.collective.gathered", gather)
    for rank in (0, 1, 2, 0):
        for module in ("distributed.collective", "evaluation.in_training"):
            monkeypatch.setattr(f"diffusion_lit.{module}.rank_and_size", lambda rank=rank: (rank, 3))
        found = features()
    assert sorted(asked[:NUM_SAMPLES]) == list(range(NUM_SAMPLES))
    assert torch.equal(found, Pixels()(FAKE))


def test_other_metrics_are_of_the_same_images(measured: tuple[Data, list[int]]) -> None:
    """And what reads training images is refused."""
    data, asked = measured
    trainer = trainer_of(data, [])
    kid = KernelDistance(None, subset_size=50)  # type: ignore[arg-type]
    FID(Pixels(), DDIMSampler(2), NUM_SAMPLES, kid=kid).measure(trainer, Module())
    assert len(asked) == NUM_SAMPLES
    expected = kid.measure(Sets(FeatureSet(Pixels()(FAKE)), FeatureSet(Pixels()(REAL))))["kid"].value
    assert float(trainer.callback_metrics[f"kid/pixels_{NUM_SAMPLES}"]) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"fid\.copies reads training images"):
        FID(Pixels(), DDIMSampler(2), NUM_SAMPLES, copies=NearestNeighbour(Pixels()))
    with pytest.raises(ValueError, match=r"kid takes at least 200 generated .* are 130: set .*kid\.subset_size lower"):
        FID(Pixels(), DDIMSampler(2), NUM_SAMPLES, kid=KernelDistance(Pixels(), subset_size=200))


def test_the_extractor_is_built_once(tmp_path: Path) -> None:
    cfg = config(
        tmp_path, "+metrics@callback.fid=[kid,precision_recall,fid_by_class]", "callback.fid.kid.subset_size=9"
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        built: list[Pixels] = []
        monkeypatch.setattr(Pixels, "__init__", lambda self, **_: (nn.Module.__init__(self), built.append(self))[0])
        callback = instantiate_sharing(cfg.callback.fid, {})
    [one] = built
    assert callback.metrics["fid_by_class"].metric.extractor is one
    assert {metric.extractor for metric in callback.metrics.values()} == {one}
    assert callback.metrics["kid"].subset_size == 9


def test_other_features_are_refused() -> None:
    """Whose figure would be called by a wrong name."""
    with pytest.raises(ValueError, match=r"fid\.fd is of inception features, .* of pixels features: leave it to"):
        FID(Pixels(), DDIMSampler(2), NUM_SAMPLES, fd=FrechetDistance(Renamed()))


class Renamed(Pixels):
    name = "inception"


def test_classes_that_were_asked_for_are_no_figure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"was asked for, .*feature=classifier"):
        train_in(
            tmp_path, "trainer.max_steps=1", "+metrics@callback.fid=[class_histogram]", "callback.sample_grid=null"
        )
    assert not (tmp_path / "checkpoints").exists()


def test_too_few_validation_images_for_a_metric_are_found_before_training(tmp_path: Path) -> None:
    options = ("+metrics@callback.fid=[kid]", "callback.fid.kid.subset_size=20", "callback.sample_grid=null")
    with pytest.raises(ValueError, match="kid takes at least 20 validation images, and there are 12"):
        train_in(tmp_path, "trainer.max_steps=1", *options)
    assert not (tmp_path / "checkpoints").exists()


def test_the_same_images_are_at_no_distance(measured: tuple[Data, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = measured
    monkeypatch.setattr(
        "diffusion_lit.evaluation.in_training.generate",
        lambda denoiser, sampler, indices, *_, **__: REAL[list(indices)],
    )
    trainer = trainer_of(data, [])
    FID(Pixels(), DDIMSampler(2), num_samples=NUM_REAL, batch_size=40).measure(trainer, Module())
    assert abs(float(trainer.callback_metrics[f"fid/pixels_{NUM_REAL}"])) < 1e-6


def test_features_that_are_all_alike_are_warned_about(
    measured: tuple[Data, list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, _ = measured
    FID(Pixels(), DDIMSampler(2), num_samples=100).measure(trainer_of(data, []), Module())
    assert "same features" not in caplog.text
    data.splits["val"] = ArrayImages(REAL[:1].repeat(50, 1, 1, 1))
    FID(Pixels(), DDIMSampler(2), num_samples=100).measure(trainer_of(data, []), Module())
    assert "fid/pixels_100: all validation images have the same features" in caplog.text


@pytest.mark.parametrize(
    ("num_samples", "name"), [(2, "2"), (999, "999"), (1000, "1k"), (50000, "50k"), (1500, "1500")]
)
def test_the_name_tells_the_extractor_and_the_count(num_samples: int, name: str) -> None:
    assert FID(Pixels(), DDIMSampler(2), num_samples).metric_name == f"fid/pixels_{name}"


def test_a_learned_extractor_learns_from_the_training_images_as_they_are_seen(
    measured: tuple[Data, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("diffusion_lit.callback.fid.prepare", lambda *arguments: given.extend(arguments))
    monkeypatch.setattr(Renamed, "learns", True)
    data, module = measured[0], Module()
    data.splits["train"] = ArrayImages(FAKE)
    extractor = Renamed()
    FID(extractor, DDIMSampler(2), NUM_SAMPLES).measure(trainer_of(data, []), module)
    assert given == [extractor, StoredImages(data.splits["train"], space=module.denoiser.space), None]


@pytest.mark.parametrize("num_real", [1, 2])
def test_what_does_not_fit_is_found_before_training(num_real: int, measured: tuple[Data, list[int]]) -> None:
    """The sampler, the shape of pixels, and too few images to compare with; of one image there is no figure at all."""

    def refuse(*given: Any) -> None:
        raise ValueError(f"{given} does not fit")

    data, module = measured[0], Module()
    module.denoiser.schedule = CosineSchedule()
    data.splits["val"] = ArrayImages(REAL[:num_real])
    callback = FID(Pixels(), DDIMSampler(2), NUM_SAMPLES, kid=KernelDistance(None, subset_size=3))  # type: ignore[arg-type]
    if num_real > 1:
        with pytest.raises(ValueError, match="kid takes at least 3 validation images, and there are 2"):
            callback.setup(trainer_of(data, []), module, "fit")
        callback.metrics["kid"].needs_real = False  # as the Inception score, which takes many generated images
        callback.setup(trainer_of(data, []), module, "fit")
    else:
        callback.setup(trainer_of(data, []), module, "fit")
    callback.extractor.check = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=re.escape(f"{SHAPE} does not fit")):
        callback.setup(trainer_of(data, []), module, "fit")
    module.denoiser.space = SimpleNamespace(bounded=False, check=lambda: refuse("the space"))  # type: ignore[assignment]
    with pytest.raises(ValueError, match="the space"):
        callback.setup(trainer_of(data, []), module, "fit")
    callback.sampler = SimpleNamespace(check=lambda denoiser: refuse("the sampler"))  # type: ignore[assignment]
    with pytest.raises(ValueError, match="the sampler"):
        callback.setup(trainer_of(data, []), module, "fit")


@pytest.mark.parametrize("num_samples", [1, 0])
def test_one_sample_has_no_covariance(num_samples: int) -> None:
    with pytest.raises(ValueError, match=rf"num_samples must be at least 2, got {num_samples}"):
        FID(Pixels(), DDIMSampler(2), num_samples)


def test_too_few_samples_for_the_features_are_announced(
    measured: tuple[Data, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    data, _ = measured
    for num_samples, announced in ((48, True), (49, False)):  # 49 samples span all 48 dimensions
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            FID(Pixels(), DDIMSampler(2), num_samples).measure(trainer_of(data, []), Module())
        found = f"fid/pixels_{num_samples} compares {num_samples} samples with 150 validation images in 48 dimensions"
        assert (found in caplog.text) == announced
