"""Measure a trained model: python -m diffusion_lit.evaluate --help"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command
from diffusion_lit.command_line.output import outlive_readers


@command("evaluate")
def main(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from diffusion_lit.evaluating import evaluate

    evaluate(cfg, list(HydraConfig.get().overrides.task))


def compare(first: str, second: str) -> int:
    """Print whether two results may be compared; the exit code, 0 if they may."""
    from diffusion_lit.evaluation.comparison import compare_results

    try:
        text, comparable = compare_results(Path(first), Path(second))
    except (OSError, ValueError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0 if comparable else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        if len(sys.argv) != 4:
            sys.exit("usage: python -m diffusion_lit.evaluate compare FOLDER_OR_FILE FOLDER_OR_FILE")
        outlive_readers()
        sys.exit(compare(*sys.argv[2:]))
    main()
