"""One `evaluate` from its configuration to its report: images are drawn or read, seen by extractors, and compared."""

import logging
import math
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.collective import rank_and_size
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.chosen_metrics import Extractors, build_metrics
from diffusion_lit.evaluation.extraction import extract
from diffusion_lit.evaluation.figures import Compared, measure, noise_floor, notes, stated
from diffusion_lit.evaluation.image_files import open_images
from diffusion_lit.evaluation.image_set import DrawnImages, ImageSet, StoredImages
from diffusion_lit.evaluation.pairs import draw_pairs
from diffusion_lit.evaluation.reference import OwnData, open_own_data, open_reference
from diffusion_lit.evaluation.report import cell_name, write_report
from diffusion_lit.generate import Setup, choose_device, set_up
from diffusion_lit.interruption import Interrupted, Interruption
from diffusion_lit.labels import Labels, ProportionalLabels
from diffusion_lit.members import chosen_members
from diffusion_lit.metrics import FeatureSet, Metric
from diffusion_lit.processes import start_processes
from diffusion_lit.sampling import has_gpu, settings_of
from diffusion_lit.shell import command_line

__all__ = ["evaluate"]

log = logging.getLogger(__name__)

T_975 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, for 1 to 9 degrees of freedom."""


class EvaluationInterrupted(Interrupted):
    """An evaluation was asked to stop; `again` is the command that continues it."""

    def __init__(self, number: int, again: str) -> None:
        super().__init__(number)
        self.again = again

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; what was done is kept. Continue with\n  {self.again}"


@dataclass(frozen=True)
class Cell:
    """One way to have images: of a comparison, one of several."""

    named: Mapping[str, Any]
    images: ImageSet
    setup: Setup | None


def evaluate(cfg: DictConfig, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Measure what `cfg` (conf/evaluate.yaml) asks for, and write the report to `cfg.out`; the report's record.

    Everything that is missing or does not fit is found before the first image is drawn.

    Args:
        cfg: the settings.
        overrides: the command line that they come from.

    Raises:
        Interrupted: if the process was asked to stop; the same command then continues.
        ValueError: if a setting is wrong, or images do not fit each other.
        FileNotFoundError: if a checkpoint, images or weights are missing.
    """
    with Interruption() as interruption:
        interruption.started = True  # signals are answered wherever the work is
        check_settings(cfg)
        start_processes(cfg.devices, cfg.device != "cpu" and has_gpu())
        try:
            return run(cfg, overrides)
        except Interrupted as stop:
            if rank_and_size()[0] > 0:
                raise SystemExit(stop.exit_code) from None
            raise EvaluationInterrupted(stop.number, repeat_command(cfg, overrides)) from None


def run(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    chosen, extractors = build_metrics(cfg)
    metrics = {name: metric for name, metric in chosen.items() if isinstance(metric, Metric)}
    likelihoods = {name: metric for name, metric in chosen.items() if isinstance(metric, Likelihood)}
    names = {key: name_of(metric, extractors) for key, metric in metrics.items()}
    device, own = choose_device(cfg.device), None
    first = first_setup(cfg) if cfg.ckpt is not None else None
    if first is not None:
        own = own_data(cfg, first, metrics)
    real = open_reference(str(cfg.against), "against", own) if needs_real(chosen) else None
    training = open_training(cfg, own, metrics)
    cells = list(cells_of(cfg, real))
    check_images(cells, real, training, metrics, likelihoods, extractors)
    prepare_extractors(extractors, own, device)

    out, cache = Path(cfg.out), Path(cfg.cache).expanduser() / "features"
    used = {name: extractor for name, extractor in extractors.items() if name in names.values()}

    def seen(images: ImageSet | None, parent: Path, what: str) -> dict[str, FeatureSet]:
        if images is None or not used:
            return {name: FeatureSet(torch.empty(0, 1)) for name in used}
        with progress(what, len(images)) as (advance, expect):
            return extract(images, used, parent, what, cfg.batch_size, device, advance, expect)

    compared = Compared({}, seen(real, cache, "real images"), seen(training, cache, "training images"))
    results, said = [], []
    for cell in cells:
        what = f"images ({cell_name(cell.named)})" if len(cells) > 1 else "images"
        cost = estimate(cell, extractors, out)
        compared = replace(compared, generated=seen(cell.images, out / "features", what))
        figures = measure(metrics, names, compared) if rank_and_size()[0] == 0 else {}
        figures |= measure_likelihoods(likelihoods, cell, real, device)
        results.append({"cell": dict(cell.named), "generated": cell.images.protocol | cost, "figures": figures})
        if rank_and_size()[0] == 0:
            said += notes(metrics, names, compared)
            if any(metric.needs_training for metric in metrics.values()) and cfg.pairs > 0:
                assert training is not None
                place = out / (f"closest_pairs_{len(results)}.png" if len(cells) > 1 else "closest_pairs.png")
                draw_pairs(cell.images, training, compared, names, metrics, cfg.pairs, place)
    if rank_and_size()[0] > 0:
        return {}
    record = {
        "command": repeat_command(cfg, overrides),
        "protocol": {
            "num_generated": len(cells[0].images),
            "real": None if real is None else real.protocol,
            "training": None if training is None else training.protocol,
            "extractors": {name: extractor.protocol() for name, extractor in used.items()},
            "metrics": settings_of_metrics(cfg),
            "generated": results[0]["generated"] if len(results) == 1 else {},
            "versions": versions(),
        },
        "results": results,
        "floor": noise_floor(metrics, names, compared) if cfg.floor and real is not None else {},
        "seeds": over_seeds(results),
        "notes": list(dict.fromkeys(said)),
    }
    paths = write_report(record, out)
    print(paths[1].read_text().split("## Protocol")[0].rstrip())
    print("\n" + "\n".join(str(path) for path in [*paths, *sorted(out.glob("closest_pairs*.png"))]))
    return record


def check_settings(cfg: DictConfig) -> None:
    """Raise a ValueError for what can be seen to be wrong at once."""
    if (cfg.ckpt is None) == (cfg.samples is None) and cfg.ckpt is None:
        raise ValueError("say what to evaluate: ckpt=RUN_OR_FILE of a model, or samples=PATH of images")
    for name in ("num_samples", "batch_size"):
        if not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {cfg[name]}")
    if cfg.samples is not None:
        drawn = {"steps": None, "guidance": 1.0, "guide": None, "guidance_interval": None, "labels": None, "seed": 0}
        if ignored := [f"{name}={cfg[name]}" for name, default in drawn.items() if cfg[name] != default]:
            raise ValueError(f"samples= are images that there are, and {', '.join(ignored)} would be ignored")


def as_list(value: Any) -> list[Any]:
    return list(value) if OmegaConf.is_list(value) else [value]


def first_setup(cfg: DictConfig) -> Setup:
    """The model, whatever is drawn with it: its space, its classes."""
    plainly = OmegaConf.merge(cfg, {"guidance": 1.0, "seed": 0, "guide": None, "labels": None, "compile": False})
    assert isinstance(plainly, DictConfig)
    plainly.sampler = next(iter(chosen_members("sampler").values()))
    return set_up(plainly)


def name_of(metric: Metric, extractors: Extractors) -> str:
    return next(name for name, extractor in extractors.items() if extractor is metric.extractor)


def needs_real(chosen: Mapping[str, Any]) -> bool:
    return any(isinstance(metric, Likelihood) or metric.needs_real for metric in chosen.values())


def own_data(cfg: DictConfig, setup: Setup, metrics: Mapping[str, Metric]) -> OwnData | None:
    """The data that the model was trained on, if anything is to be taken from it."""
    splits = ("train", "val", "test")
    learned = any(metric.needs_training for metric in metrics.values()) and cfg.training is None
    if str(cfg.against) not in splits and not learned:
        return None
    checkpoint = load_checkpoint(cfg.ckpt)
    space = setup.denoiser.space
    return open_own_data(checkpoint, str(cfg.ckpt), cfg.data_root, space, setup.device, cfg.allow)


def open_training(cfg: DictConfig, own: OwnData | None, metrics: Mapping[str, Metric]) -> StoredImages | None:
    """The images that the model was trained on, where a metric reads them."""
    asking = [name for name, metric in metrics.items() if metric.needs_training]
    if not asking:
        if cfg.training is not None:
            raise ValueError(f"training={cfg.training} would be ignored: none of the metrics reads it")
        return None
    if str(cfg.against) == "train" or (cfg.training is not None and str(cfg.training) == str(cfg.against)):
        raise ValueError(
            f"{', '.join(asking)} compare training images with others, which against={cfg.against} must be: take "
            "against=test or against=val"
        )
    if cfg.training is not None:
        return open_images(cfg.training, "training")
    if own is None:
        raise ValueError(f"{', '.join(asking)} need the images the model was trained on: training=PATH, or ckpt=")
    return own.split("train")


def cells_of(cfg: DictConfig, real: StoredImages | None) -> Iterator[Cell]:
    """What is measured: each sampler, with each number of steps, guidance and seed."""
    if cfg.samples is not None:
        yield Cell({}, open_images(cfg.samples, "samples"), None)
        return
    axes = {"sampler": chosen_members("sampler")}
    several = {name: as_list(cfg[name]) for name in ("steps", "guidance", "seed")}
    for sampler, steps, guidance, seed in product(axes["sampler"], *several.values()):
        own = OmegaConf.merge(cfg, {"guidance": guidance, "seed": seed})
        assert isinstance(own, DictConfig)
        own.sampler = axes["sampler"][sampler]
        if steps is not None:
            if "num_steps" not in own.sampler:
                raise ValueError(f"sampler={sampler} takes no number of steps, and steps={steps} would be ignored")
            own.sampler.num_steps = steps
        setup = set_up(own)
        labels = setup.by_index if cfg.labels is not None else proportions(setup, real)
        images = DrawnImages(setup, settings_of(own, setup, labels), seed, cfg.num_samples, labels)
        named = {"sampler": sampler, "steps": images.num_steps, "guidance": guidance, "seed": seed}
        varied = {"sampler": axes["sampler"], **several}
        yield Cell({k: v for k, v in named.items() if len(varied[k]) > 1}, images, setup)


def proportions(setup: Setup, real: StoredImages | None) -> Labels | None:
    """The classes of the images compared with, in their proportions, where these are known."""
    num_classes = setup.denoiser.num_classes
    known = None if real is None or num_classes is None else real.every_label
    if known is None or not (known >= 0).any() or int(known.max()) >= (num_classes or 0):
        return setup.by_index
    return ProportionalLabels(tuple(torch.bincount(known[known >= 0], minlength=num_classes or 0).tolist()))


def check_images(
    cells: Sequence[Cell],
    real: StoredImages | None,
    training: StoredImages | None,
    metrics: Mapping[str, Metric],
    likelihoods: Mapping[str, Likelihood],
    extractors: Extractors,
) -> None:
    """Raise a ValueError where images do not fit each other, an extractor or a metric."""
    sets: dict[str, ImageSet | None] = {"generated": cells[0].images, "real": real, "training": training}
    shapes = {name: images.shape for name, images in sets.items() if images is not None}
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            words = [f"{c} x {h} x {w}" for c, h, w in (shape, other)]
            raise ValueError(
                f"the {first} images are {words[0]} and the {name} images {words[1]} (channels x height x width): make "
                "them alike first, since how they are scaled decides the figures"
            )
    for extractor in extractors.values():
        extractor.check(*shape)
    for key, metric in metrics.items():
        for name, images in sets.items():
            few = images is not None and len(images) < metric.min_images
            if few and (name != "real" or metric.needs_real):
                assert images is not None
                raise ValueError(
                    f"{key} takes at least {metric.min_images} {name} images, and there are {len(images)}: take more, "
                    f"or leave it out of metrics"
                )
    if likelihoods and cells[0].setup is None:
        raise ValueError(f"{', '.join(likelihoods)} are of a model, and samples= are images: give ckpt= instead")
    for likelihood in likelihoods.values():
        assert cells[0].setup is not None
        likelihood.check(cells[0].setup.denoiser)


def prepare_extractors(extractors: Extractors, own: OwnData | None, device: str) -> None:
    """Let extractors that learn do so, and put all of them where they are used."""
    for extractor in extractors.values():
        train = None if own is None or not hasattr(own.data.splits["train"], "fetch") else own.split("train")
        if train is not None:
            extractor.prepare(labelled(train), own.data.num_classes if own else None, train.content)
        extractor.to(device)


def labelled(images: StoredImages) -> Iterator[tuple[Tensor, Tensor | None]]:
    for first in range(0, len(images), 250):
        indices = range(first, min(first + 250, len(images)))
        [batch] = images.batches(indices, 250)
        yield batch, images.labels(indices)


def measure_likelihoods(
    likelihoods: Mapping[str, Likelihood], cell: Cell, real: StoredImages | None, device: str
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, likelihood in likelihoods.items():
        assert cell.setup is not None and real is not None
        for name, figure in likelihood.measure(cell.setup.denoiser, real, device).items():
            found[name] = stated(figure) | {"metric": key, "better": likelihood.better}
    return found


def estimate(cell: Cell, extractors: Extractors, out: Path) -> dict[str, Any]:
    """How often the network is called for an image; said, with how long all may take, before they are drawn."""
    images, setup = cell.images, cell.setup
    if not isinstance(images, DrawnImages) or setup is None:
        return {}
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hooks = [m.register_forward_pre_hook(count) for m in setup.denoiser.modules() if isinstance(m, Denoiser)]
    began = time.monotonic()
    batch = sum(len(drawn) for drawn in images.batches(range(min(16, len(images))), 16))
    seconds = (time.monotonic() - began) / batch * len(images) / rank_and_size()[1]
    for hook in hooks:
        hook.remove()
    if rank_and_size()[0] == 0:
        named = f" ({cell_name(cell.named)})" if cell.named else ""
        log.info("drawing %d images%s, %d network calls each: about %s", len(images), named, calls, duration(seconds))
    return {"calls_per_image": calls}


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{math.ceil(seconds / 60)} min"


@contextmanager
def progress(what: str, total: int) -> Iterator[tuple[Callable[[float], object], Callable[[int], object]]]:
    """A bar of this process's share, which is shown once there is something to do."""
    bar = tqdm(desc=what, total=total, unit="image", disable=True)

    def expect(count: int) -> None:
        nonlocal bar
        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} images [{elapsed}, {remaining} left]"
        bar = tqdm(desc=what, total=count, bar_format=form, disable=rank_and_size()[0] > 0 or count == 0)

    try:
        yield lambda n: bar.update(n), expect
    finally:
        bar.close()


def over_seeds(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and half a 95 % interval of each figure, over the seeds of each cell."""
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if "seed" in result["cell"]:
            rest = {key: value for key, value in result["cell"].items() if key != "seed"}
            cells.setdefault(cell_name(rest), []).append(result["figures"])
    summary = []
    for cell, measured in cells.items():
        count, figures = len(measured), {}
        for name in measured[0]:
            values = torch.tensor([own[name]["value"] for own in measured], dtype=torch.float64)
            t = T_975[count - 2] if count - 2 < len(T_975) else 1.96 + 2.5 / (count - 1)
            figures[name] = [float(values.mean()), float(t * values.std() / math.sqrt(count))]
        summary.append({"cell": cell, "count": count, "figures": figures})
    return summary


def settings_of_metrics(cfg: DictConfig) -> dict[str, Any]:
    """What the metrics were asked for, without extractors, which are stated apart."""

    def without(node: dict[str, Any]) -> dict[str, Any]:
        inner = {key: without(value) if isinstance(value, dict) else value for key, value in node.items()}
        return {key: value for key, value in inner.items() if key != "extractor"}

    container = OmegaConf.to_container(cfg.metrics, resolve=True)
    assert isinstance(container, dict)
    return without({str(name): node for name, node in container.items() if node is not None})


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("diffusion-lit", "torch", "torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages}


def repeat_command(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """The command that measures the same again, or goes on with it, to be given in any folder."""
    given = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    named = ("ckpt", "guide", "autoencoder", "samples", "training", "data_root", "out")
    paths = {key: Path(cfg[key]).resolve() for key in named if cfg[key] is not None}
    if Path(str(cfg.against)).exists():
        paths["against"] = Path(cfg.against).resolve()
    return command_line("evaluate", {**given, **paths})
