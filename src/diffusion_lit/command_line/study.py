"""A sweep whose values Optuna chooses, trial after trial, by what earlier ones came to."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from diffusion_lit.extra import require

if TYPE_CHECKING:
    import optuna

__all__ = ["Study", "distribution_of"]

log = logging.getLogger(__name__)


class Study(Sweeper):
    """Asks a study for values, has the job done, and tells the study its objective.

    The study is in `study.journal` in the sweep's folder. When the sweep is run again there, it has all earlier trials;
    those that were cut are done first, with the values that they had, and so in their folders.

    Args:
        trials: how many in all.
        parallel: how many are asked for at a time, before the result of any is known.
        seed: of the choices (TPE, Bergstra et al. 2011).
        direction: `min` or `max`.

    Raises:
        ValueError: if a number is not positive, or the direction is another.
    """

    def __init__(self, trials: int, parallel: int, seed: int, direction: str) -> None:
        if trials < 1 or parallel < 1:
            raise ValueError(f"sweep.trials and sweep.parallel must be positive, got {trials} and {parallel}")
        self.trials, self.parallel, self.seed = trials, parallel, seed
        if direction not in ("min", "max"):
            raise ValueError(f"objective_mode must be min or max, got {direction}")
        self.direction: Any = {"min": "minimize", "max": "maximize"}[direction]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings = config
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self.hydra_context, self.config = hydra_context, config  # for `validate_batch_is_legal`
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        overrides = self.parser.parse_overrides(arguments)
        fixed = [argument for argument, o in zip(arguments, overrides, strict=True) if not o.is_sweep_override()]
        space = {o.get_key_element(): distribution_of(o) for o in overrides if o.is_sweep_override()}
        study = self.open_study()
        job = len(study.get_trials(deepcopy=False))
        while batch := self.next_batch(study, space):
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in batch]
            self.validate_batch_is_legal(jobs)
            for trial, result in zip(batch, self.launcher.launch(jobs, initial_job_idx=job), strict=True):
                self.tell(study, trial, result.return_value)
            job += len(batch)

    def open_study(self) -> "optuna.Study":
        require("optuna", "sweep", "sweep=optuna")
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder = Path(self.settings.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
        study = optuna.create_study(
            storage=storage, study_name=self.settings.objective, direction=self.direction, load_if_exists=True
        )
        # Not the draws again that the earlier start's trials had.
        study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.get_trials(deepcopy=False)))
        return study

    def next_batch(self, study: "optuna.Study", space: dict[str, Any]) -> Sequence[Any]:
        """The trials to be done next: at first those that an earlier start left."""
        from optuna.trial import TrialState

        if cut := study.get_trials(states=[TrialState.RUNNING]):
            return cut[: self.parallel]
        left = self.trials - len(study.get_trials(deepcopy=False))
        return [study.ask(space) for _ in range(min(self.parallel, left))]

    def tell(self, study: "optuna.Study", trial: Any, objective: float | None) -> None:
        """A job without an objective has failed, which the study takes note of."""
        from optuna.trial import TrialState

        if objective is None:
            study.tell(trial.number, state=TrialState.FAIL)
        else:
            study.tell(trial.number, objective)
        best = study.best_trial if study.get_trials(states=[TrialState.COMPLETE], deepcopy=False) else None
        log.info("trial %d: %s; best so far: %s", trial.number, objective, best and (best.value, best.params))


def distribution_of(override: Override) -> "optuna.distributions.BaseDistribution":
    """What an override on the command line lets Optuna choose from.

    A choice is text, as it would be typed; `int(interval(a,b))` is one of integers.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind: Any = IntDistribution if whole else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range):
        return IntDistribution(numbers[0], numbers[-1], step=numbers.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))
