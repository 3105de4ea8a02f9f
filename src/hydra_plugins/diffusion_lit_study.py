"""Where Hydra looks for plugins: it takes a sweeper from this package only."""

from diffusion_lit.command_line.study import Study


class OptunaSweeper(Study):
    """`sweep=optuna`, see conf/sweep/optuna.yaml."""
