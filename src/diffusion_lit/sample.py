"""Draw images from a trained model: python -m diffusion_lit.sample --help"""

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command


@command("sample")
def main(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from diffusion_lit.sampling import sample

    sample(cfg, list(HydraConfig.get().overrides.task))


if __name__ == "__main__":
    main()
