"""Write a trained model for other programs: python -m diffusion_lit.export --help"""

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command


@command("export")
def main(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from diffusion_lit.exporting import export

    export(cfg, list(HydraConfig.get().overrides.task))


if __name__ == "__main__":
    main()
