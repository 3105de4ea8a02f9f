"""One `evaluate` from its configuration to its report: images are drawn or read, seen by extractors, and compared."""

import platform
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.collective import rank_and_size
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.cells import cells_of, first_setup
from diffusion_lit.evaluation.checks import check_images, check_settings
from diffusion_lit.evaluation.chosen_metrics import Extractors, build_metrics
from diffusion_lit.evaluation.extraction import extract
from diffusion_lit.evaluation.figures import Compared, measure, noise_floor, notes, stated
from diffusion_lit.evaluation.image_set import ImageSet, StoredImages
from diffusion_lit.evaluation.intervals import over_seeds
from diffusion_lit.evaluation.pairs import draw_pairs
from diffusion_lit.evaluation.progress import estimate, progress
from diffusion_lit.evaluation.reference import needs_real, open_reference, open_training, own_data, prepare_extractors
from diffusion_lit.evaluation.report import cell_name, write_report
from diffusion_lit.generate import Setup, choose_device
from diffusion_lit.interruption import Interrupted, Interruption
from diffusion_lit.metrics import FeatureSet, Metric
from diffusion_lit.processes import start_processes
from diffusion_lit.shell import command_line

__all__ = ["evaluate"]


class EvaluationInterrupted(Interrupted):
    """An evaluation was asked to stop; `again` is the command that continues it."""

    def __init__(self, number: int, again: str) -> None:
        super().__init__(number)
        self.again = again

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; what was done is kept. Continue with\n  {self.again}"


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
        start_processes(cfg.devices, cfg.device != "cpu" and torch.cuda.is_available())
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
    likely = measure_likelihoods(likelihoods, first, real, device)
    results, said = [], []
    for cell in cells:
        what = f"images ({cell_name(cell.named)})" if len(cells) > 1 else "images"
        cost = estimate(cell)
        compared = replace(compared, generated=seen(cell.images, out / "features", what))
        figures = measure(metrics, names, compared) if rank_and_size()[0] == 0 else {}
        figures |= likely
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


def name_of(metric: Metric, extractors: Extractors) -> str:
    return next(name for name, extractor in extractors.items() if extractor is metric.extractor)


def measure_likelihoods(
    likelihoods: Mapping[str, Likelihood], setup: Setup | None, real: StoredImages | None, device: str
) -> dict[str, dict[str, Any]]:
    """Of the model without guidance, however its images are drawn."""
    found: dict[str, dict[str, Any]] = {}
    for key, likelihood in likelihoods.items():
        assert setup is not None and real is not None
        for name, figure in likelihood.measure(setup.denoiser, real, device).items():
            found[name] = stated(figure) | {"metric": key, "better": likelihood.better}
    return found


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
