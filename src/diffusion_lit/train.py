"""Train a model: python -m diffusion_lit.train --help"""

from omegaconf import DictConfig

from diffusion_lit.command import command


@command("train")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from diffusion_lit.training import train

    hydra = HydraConfig.get()
    cell = Path(hydra.runtime.output_dir).name if hydra.mode == RunMode.MULTIRUN else None
    train(cfg, list(hydra.overrides.task), cell)


if __name__ == "__main__":
    main()
