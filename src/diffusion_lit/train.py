"""Train a model: python -m diffusion_lit.train --help"""

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command
from diffusion_lit.command_line.job import end_job, job_name


@command("train")
def main(cfg: DictConfig) -> float | None:
    """Train, and in a sweep return the best value of `cfg.objective`."""
    from hydra.core.hydra_config import HydraConfig

    from diffusion_lit.run.objective import figures_of
    from diffusion_lit.run.resume import Origin
    from diffusion_lit.training import train
    from diffusion_lit.trust.recorded import remember_own_packages

    remember_own_packages(cfg)
    job = job_name()
    trained = train(cfg, list(HydraConfig.get().overrides.task), job)
    if job is None:
        return None
    figures = figures_of(cfg)
    end_job(figures=figures, trained=not isinstance(trained, Origin))
    return figures.get("best")


if __name__ == "__main__":
    main()
