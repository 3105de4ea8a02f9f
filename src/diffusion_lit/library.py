"""The commands as functions: settings as on the command line, and their results as objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit import evaluating, exporting, sampling, training
from diffusion_lit.call import call
from diffusion_lit.checkpoint import find_checkpoint
from diffusion_lit.logger.csv import read_table
from diffusion_lit.run.resume import Origin, read
from diffusion_lit.trained_model import TrainedModel, load
from diffusion_lit.trust.plain import read_json
from diffusion_lit.trust.recorded import own_packages, remember_own_packages

__all__ = ["Evaluation", "Run", "evaluate", "export", "sample", "train"]


@dataclass(frozen=True)
class Run:
    """A run that was trained."""

    folder: Path
    """Where its checkpoints, figures and pictures are."""
    step: int
    """How many optimizer steps its newest checkpoint has."""
    figures: dict[str, float] = field(repr=False)
    """The newest value of each figure that was logged, such as `val/loss`."""
    allow: tuple[str, ...] = field(default=(), repr=False)
    """Packages of one's own that its parts are from."""

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of its metrics.csv, each with `step` and the figures of that step; none without that logger."""
        return read_table(self.folder / "metrics.csv")

    @cached_property
    def model(self) -> TrainedModel:
        """The model of its newest checkpoint: with averaged weights, unless it was trained without."""
        averaged = read(find_checkpoint(self.folder)).get("ema")
        return load(self.folder, weights="ema" if averaged else "raw", allow=self.allow)


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    folder: Path
    """Where evaluation.json and evaluation.md are."""
    results: list[dict[str, Any]] = field(repr=False)
    """For each combination of the lists that were given: `cell`, its settings, and `figures`, all that is known of
    each."""

    @property
    def figures(self) -> dict[str, float]:
        """The value of each figure by its name; a ValueError if lists of settings were compared: see `results`."""
        if len(self.results) != 1:
            raise ValueError(f"{len(self.results)} combinations of settings were measured: see results for each")
        return {name: figure["value"] for name, figure in self.results[0]["figures"].items()}


def train(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Run:
    """Train, as `python -m diffusion_lit.train` does with the same settings.

    Args:
        overrides: settings, such as `["schedule=cosine", "trainer.max_steps=500"]`; `python -m diffusion_lit.train
            --help` lists them.
        config_dir: a folder of one's own configurations (docs/extending.md).

    Raises:
        ValueError: if a setting is wrong; before any work starts.
        FileNotFoundError: if data, weights or the checkpoint to resume from are missing.
        KeyboardInterrupt: if it was interrupted; what is saved, and how to continue, is said.
    """

    def run(cfg: DictConfig, overrides: list[str]) -> Run:
        remember_own_packages(cfg)
        trained = training.train(cfg, overrides)
        own = own_packages(OmegaConf.to_container(cfg.denoiser, resolve=True))
        allow = tuple(dict.fromkeys([*cfg.allow, *own]))
        if isinstance(trained, Origin):  # nothing was left to train
            return Run(trained.run, trained.step, newest(trained.run), allow)
        logged = {name: float(value) for name, value in trained.callback_metrics.items()}
        return Run(Path(cfg.run_dir), trained.global_step, logged | newest(Path(cfg.run_dir)), allow)

    return call("train", overrides, run, config_dir)


def newest(folder: Path) -> dict[str, float]:
    """The last value of each column of a run's table."""
    return {name: value for row in read_table(folder / "metrics.csv") for name, value in row.items() if name != "step"}


def sample(overrides: Sequence[str], config_dir: str | Path | None = None) -> Path:
    """Draw images into files, as `python -m diffusion_lit.sample` does; `load(RUN).sample()` gives a tensor instead.

    Args:
        overrides: settings, such as `["ckpt=outputs/train/RUN", "num_samples=64", "format=png"]`.
        config_dir: as `train`.

    Returns:
        The folder of the images.

    Raises:
        ValueError, FileNotFoundError, KeyboardInterrupt: as `train`.
    """

    def run(cfg: DictConfig, overrides: list[str]) -> Path:
        sampling.sample(cfg, overrides)
        return Path(cfg.out)

    return call("sample", overrides, run, config_dir)


def evaluate(overrides: Sequence[str], config_dir: str | Path | None = None) -> Evaluation:
    """Measure a model or images, as `python -m diffusion_lit.evaluate` does.

    Args:
        overrides: settings, such as `["ckpt=outputs/train/RUN", "num_samples=1000", "feature=classifier"]`.
        config_dir: as `train`.

    Raises:
        ValueError, FileNotFoundError, KeyboardInterrupt: as `train`.
    """

    def run(cfg: DictConfig, overrides: list[str]) -> Evaluation:
        evaluating.evaluate(cfg, overrides)
        return Evaluation(Path(cfg.out), read_json(Path(cfg.out) / "evaluation.json")["results"])

    return call("evaluate", overrides, run, config_dir)


def export(overrides: Sequence[str], config_dir: str | Path | None = None) -> Path:
    """Write a model for other programs, as `python -m diffusion_lit.export` does.

    Args:
        overrides: settings, such as `["ckpt=outputs/train/RUN", "format=onnx", "out=DIR"]`.
        config_dir: as `train`.

    Returns:
        The folder that was made.

    Raises:
        ValueError, FileNotFoundError, KeyboardInterrupt: as `train`.
    """
    return call("export", overrides, exporting.export, config_dir)
