"""One `evaluate` from its configuration to its report: images are drawn or read, seen by extractors, and compared."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from diffusion_lit.distributed.collective import decided, rank_and_size
from diffusion_lit.distributed.processes import start_processes
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.cells import Cell, cells_of
from diffusion_lit.evaluation.checks import (
    check_held_out,
    check_images,
    check_likelihoods,
    check_place,
    check_settings,
)
from diffusion_lit.evaluation.chosen_metrics import Extractors, build_metrics
from diffusion_lit.evaluation.class_names import ClassNames
from diffusion_lit.evaluation.cost import announce, estimate
from diffusion_lit.evaluation.extraction import extract
from diffusion_lit.evaluation.feature_folder import prune
from diffusion_lit.evaluation.figures import Compared, measure, name_beside, noise_floor, notes, stated
from diffusion_lit.evaluation.ignored import OF_MODEL, check_nothing_drawn, check_read
from diffusion_lit.evaluation.image_set import ImageSet, StoredImages
from diffusion_lit.evaluation.intervals import over_seeds
from diffusion_lit.evaluation.pairs import draw_pairs
from diffusion_lit.evaluation.protocol import protocol_of
from diffusion_lit.evaluation.reference import open_real, open_training, own_data, prepare_extractors
from diffusion_lit.evaluation.report import FILES, cell_name, write_report
from diffusion_lit.files import remove_empty
from diffusion_lit.generate import Models, choose_device, load_models
from diffusion_lit.loading import check_same
from diffusion_lit.metrics import FeatureSet, Metric
from diffusion_lit.page.run_figure import drawings_of, save_page
from diffusion_lit.provenance import repeat_command
from diffusion_lit.run.past import Evaluation
from diffusion_lit.terminal.interruption import CommandInterrupted, Interrupted, Interruption
from diffusion_lit.terminal.progress import progress
from diffusion_lit.terminal.screen import choose_progress

__all__ = ["evaluate"]


def evaluate(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Measure what `cfg` (conf/evaluate.yaml) asks for, and write the report to `cfg.out`.

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
        choose_progress(cfg.progress)
        check_settings(cfg, overrides)
        start_processes(cfg.devices, cfg.device != "cpu" and torch.cuda.is_available())
        try:
            run(cfg, overrides)
        except (ValueError, OSError):
            remove_empty(Path(cfg.out))
            raise
        except Interrupted as stop:
            if rank_and_size()[0] > 0:
                raise SystemExit(stop.exit_code) from None
            again = repeat_command("evaluate", cfg, overrides)
            raise CommandInterrupted(stop.number, "what was done is kept", again) from None


def run(cfg: DictConfig, overrides: Sequence[str]) -> None:
    out, cache, device = Path(cfg.out), Path(cfg.cache).expanduser() / "features", choose_device(cfg.device)
    decided(lambda: check_place(out))
    chosen, extractors = build_metrics(cfg)
    check_read(cfg, overrides, chosen)
    metrics = {name: metric for name, metric in chosen.items() if isinstance(metric, Metric)}
    likelihoods = {name: metric for name, metric in chosen.items() if isinstance(metric, Likelihood)}
    names = {key: name_of(metric, extractors) for key, metric in metrics.items()}
    models = load_models(cfg) if cfg.ckpt is not None else None
    if models is not None:
        check_same(cfg.ckpt, models.contents)
    check_likelihoods(likelihoods, models, cfg.samples)
    if not metrics:
        check_nothing_drawn(likelihoods, overrides)
    own = own_data(cfg, models, chosen, extractors)
    classes = ClassNames(None if models is None else models.checkpoint.get("class_names"))
    real = open_real(cfg, models, own, chosen, classes)
    training = open_training(cfg, models, own, chosen, classes)
    check_held_out(likelihoods, models, real, classes)
    cells = list(cells_of(cfg, models, real if metrics else None, classes))
    check_images(cells, real, training, metrics, extractors, classes)
    prepare_extractors(extractors, own, device)

    def seen(images: ImageSet | None, parent: Path, what: str, cell: Cell | None = None) -> dict[str, FeatureSet]:
        if images is None or not extractors:
            return {name: FeatureSet(torch.empty(0, 1)) for name in extractors}
        with progress(what, None, "images") as work:

            def expect(missing: int) -> None:
                if cell is not None:
                    announce(cell, cost, missing)
                work.expect(missing)

            return extract(images, extractors, parent, what, cfg.batch_size, device, work.advance, expect)

    first, size = rank_and_size()[0] == 0, len(cells)
    compared = Compared({}, seen(real, cache, "real images"), seen(training, cache, "training images"))
    if first and cfg.cache_gib is not None:
        prune(cache, cfg.cache_gib * 2**30)
    likely = measure_likelihoods(likelihoods, models, real)
    results: list[dict[str, Any]] = []
    pairs: list[Path] = []
    said = classes.notes() + (classes.legend() if any(metric.of_each_class for metric in metrics.values()) else [])
    for number, cell in enumerate(cells, 1):
        what = f"images ({cell_name(cell.named)})" if size > 1 else "images"
        cost = estimate(cell, cfg.batch_size) if extractors else ({}, 0.0)
        now = compared = replace(compared, generated=seen(cell.images, out / "features", what, cell))
        figures = decided(lambda now=now: measure(metrics, names, now))  # type: ignore[misc]
        figures |= {name_beside(figures, name, own["metric"]): own for name, own in likely.items()}
        described = {"generated": cell.images.protocol | cost[0], "count": len(cell.images)}
        if not metrics:  # nothing is drawn
            described = {"generated": {key: cell.images.protocol[key] for key in OF_MODEL}, "count": 0}
        results.append({"cell": dict(cell.named), **described, "figures": figures})
        said += notes(metrics, names, compared) if first else []
        if first and training is not None and cfg.pairs > 0:
            place = out / (f"closest_pairs_{number}.png" if size > 1 else "closest_pairs.png")
            draw_pairs(cell.images, training, compared, names, metrics, cfg.pairs, place)
            pairs.append(place)
    if not first:
        return
    record = {
        "command": repeat_command("evaluate", cfg, overrides),
        "protocol": protocol_of(cfg, results, real, training, metrics, extractors),
        "results": results,
        "floor": noise_floor(metrics, names, compared, figures) if cfg.floor and real is not None else {},
        "seeds": over_seeds(results),
        "notes": list(dict.fromkeys(said)),
    }
    paths = write_report(record, out)
    if drawn := drawings_of(Evaluation(paths[0], record)):
        paths += save_page(drawn, out / Path(FILES[2]).stem, ["png"])
    paths += pairs
    remove_others(out, paths)
    print(paths[1].read_text().split("## Protocol")[0].rstrip())
    print("\n" + "\n".join(map(str, paths)))


def name_of(metric: Metric, extractors: Extractors) -> str:
    return next(name for name, extractor in extractors.items() if extractor is metric.extractor)


def remove_others(out: Path, paths: Sequence[Path]) -> None:
    """Remove pictures that an earlier evaluation has left in the folder: its pairs and figures are not of this one."""
    pairs = [path for path in out.glob("closest_pairs*.png") if re.fullmatch(r"closest_pairs(_\d+)?\.png", path.name)]
    for path in {*pairs, out / FILES[2]} - {*paths}:
        path.unlink(missing_ok=True)


def measure_likelihoods(
    likelihoods: Mapping[str, Likelihood], models: Models | None, real: StoredImages | None
) -> dict[str, dict[str, Any]]:
    """Of the model without guidance, however its images are drawn."""
    found: dict[str, dict[str, Any]] = {}
    for key, likelihood in likelihoods.items():
        assert models is not None and real is not None
        for name, figure in likelihood.measure(models.denoiser, real, models.device).items():
            found[name_beside(found, name, key)] = stated(figure) | {
                "metric": key,
                "reads": ["real"],
                "better": likelihood.better,
            }
    return found
