"""One page of a run, or of runs against each other: python -m diffusion_lit.report --help"""

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command


@command("report")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    from diffusion_lit.page.write import write_page
    from diffusion_lit.run.past import read_runs

    runs = read_runs(cfg.run, cfg.evaluation)
    out = Path(cfg.out or runs[0].folder / "report.html").expanduser()
    if out.is_dir() or not out.suffix:
        out /= "report.html"
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"out={cfg.out} is not the name of a page: give a folder, or a name that ends in .html")
    for text in write_page(runs, out):
        print(f"left out: {text}")
    print(out)


if __name__ == "__main__":
    main()
