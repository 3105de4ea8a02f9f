"""Train a model: python -m diffusion_lit.train --help"""

from omegaconf import DictConfig

from diffusion_lit.command import command


@command("train")
def main(cfg: DictConfig) -> None:
    from diffusion_lit.training import train

    train(cfg)


if __name__ == "__main__":
    main()
