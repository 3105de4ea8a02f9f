"""What other libraries say on every run and nobody can act on."""

import logging
import warnings
from collections.abc import Iterable

from lightning.pytorch.loggers import Logger, WandbLogger

__all__ = ["quiet_loggers", "quiet_the_platform"]

MESSAGES = (
    ".*does not have many workers.*",  # datasets in memory are fastest without
    ".*The number of training batches.*",  # log_every_n_steps counts steps, not epochs
    ".*isinstance.treespec, LeafSpec.*",
    ".*Experiment logs directory.*exists and is not empty.*",  # it is the run's folder, which Hydra has just made
    ".*Checkpoint directory.*exists and is not empty.*",  # a run may continue in its folder
    ".*callbacks used to create the checkpoint need to be provided.*",  # the start says which part is off
    ".*your dataloader is not resumable.*",  # it is: the data module says where to begin
    ".*The dirpath has changed from.*",  # a resumed run has a folder of its own
    ".*Grad strides do not match bucket view strides.*",  # 1 x 1 convolutions on a CPU
    ".*sync_dist=True.*",  # torchmetrics has already synchronised what is logged
)
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed")


def quiet_the_platform() -> None:
    """Silence it, for this process."""
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message=message)
    logging.captureWarnings(True)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def quiet_loggers(loggers: Iterable[Logger]) -> None:
    """Keep Lightning from giving W&B a setting, whatever its value, that W&B warns of on every run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger._wandb_init.pop("anonymous", None)
