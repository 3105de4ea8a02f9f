"""Draw schedules, what a trained model does along time, and curves of runs: python -m diffusion_lit.plot --help"""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffusion_lit.command_line.command import command
from diffusion_lit.command_line.shell import key_of

OF_RUNS = {"run", "evaluation", "x", "format", "out"}
"""Settings of `plot run=`."""


@command("plot")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    from hydra.utils import instantiate

    from diffusion_lit.command_line.members import chosen_members
    from diffusion_lit.figure import draw_schedules, draw_strip, example_image, follow, save_animation
    from diffusion_lit.generate import condition_of, set_up
    from diffusion_lit.page.run_figure import check_formats, draw_runs
    from diffusion_lit.run.past import read_runs

    if cfg.animation not in ("gif", "webp", None):
        raise ValueError(f"animation must be gif, webp or null, got {cfg.animation}")
    given = {key_of(override).partition(".")[0] for override in HydraConfig.get().overrides.task}
    if cfg.run is not None:
        if ignored := sorted(given - OF_RUNS):
            raise ValueError(f"with run only curves are drawn, and {', '.join(ignored)} would be ignored; leave it out")
        for path in draw_runs(read_runs(cfg.run, cfg.evaluation), Path(cfg.out), cfg.x, check_formats(cfg.format)):
            print(path)
        return
    if ignored := sorted(given & OF_RUNS - {"out"}):
        raise ValueError(f"{', '.join(ignored)} would be ignored without run: give run=RUN, or leave it out")
    if cfg.ckpt is not None and "schedule" in given:
        raise ValueError("the schedule is the checkpoint's: give either schedule or ckpt")
    if cfg.ckpt is None and (ignored := sorted(given - {"schedule", "out", "ckpt"})):
        raise ValueError(f"without ckpt only schedules are drawn, and {', '.join(ignored)} would be ignored; give ckpt")
    if cfg.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {cfg.num_samples}")
    trajectory = None
    if cfg.ckpt is None:
        schedules = {name: instantiate(member) for name, member in chosen_members("schedule").items()}
    else:
        setup, indices = set_up(cfg), range(cfg.num_samples)
        condition = condition_of(setup.labels(indices), setup.device)
        trajectory = follow(setup.denoiser, setup.sampler, indices, condition, cfg.seed, setup.device)
        schedules = {type(setup.denoiser.schedule).__name__: setup.denoiser.schedule.cpu()}
    out = Path(cfg.out)
    draw_schedules(schedules, example_image(), out / "schedules.png")
    print(out / "schedules.png")
    if trajectory is not None:
        draw_strip(trajectory, out / "trajectory.png")
        print(out / "trajectory.png")
        if cfg.animation is not None:
            save_animation(trajectory, out / f"trajectory.{cfg.animation}", columns=cfg.num_samples)
            print(out / f"trajectory.{cfg.animation}")


if __name__ == "__main__":
    main()
