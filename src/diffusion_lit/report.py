"""One page of a run, or of runs against each other: python -m diffusion_lit.report --help"""

from omegaconf import DictConfig

from diffusion_lit.command import command


@command("report")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    from diffusion_lit.page.write import write_page
    from diffusion_lit.past_run import read_runs

    def listed(value: object) -> list[str]:
        return [] if value is None else [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]

    runs = read_runs(listed(cfg.run), listed(cfg.evaluation))
    out = Path(cfg.out if cfg.out is not None else runs[0].folder / "report.html").expanduser()
    if out.is_dir() or not out.suffix:
        out /= "report.html"
    write_page(runs, out)
    for run in runs:
        for text in run.left_out:
            print(f"left out: {run.name}: {text}")
    print(out)


if __name__ == "__main__":
    main()
