"""Save a view of this project's runs in W&B: the same panels, in the same order, for whoever opens it.

    pip install wandb-workspaces
    python examples/wandb/workspace.py ENTITY diffusion-lit

It needs `wandb login`, and prints the view's address. Panels fill as runs log what they show.
"""

import argparse
from typing import Any

STEPS, IMAGES = "trainer/global_step", "images_seen"
SECTIONS: dict[str, dict[str, str]] = {
    "Is it healthy?": {
        "loss": "train/loss|val/loss(_raw)?",
        "training loss by noise level": "train/loss_.*noise",
        "validation loss by noise level": "val/loss_.*noise",
        "gradient norm before clipping": "train/grad_norm",
        "clipped share, gradients not finite": "train/(clipped|not_finite)",
        "learning rate": "train/lr",
    },
    "Is it good?": {
        "Frechet distance": "fid/.+",
        "other metrics of samples": "(kid|precision|recall|density|coverage)/.+",
    },
    "Is it fast?": {
        "images a second": "throughput/images_per_s",
        "shares: waiting for images, of peak FLOPS": "throughput/(data_wait|mfu)",
        "memory, GiB": "memory/.+",
    },
}
"""Panels by section: their titles, and patterns (RE2's) of the figures in them."""
PICTURES = ("samples", "samples_raw", "denoising")
BEST = ("summary:val/loss_best", "summary:val/loss_best_step", "config:schedule._target_", "config:optimizer.lr")
"""Columns of the table of runs."""


def view(entity: str, project: str) -> Any:
    """The view, not saved yet."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def curves(title: str, pattern: str) -> Any:
        return wr.LinePlot(title=title, x=STEPS, metric_regex=f"^({pattern})$", max_runs_to_show=20)

    sections = [
        ws.Section(name, panels=[curves(title, pattern) for title, pattern in panels.items()], is_open=True)
        for name, panels in SECTIONS.items()
    ]
    sections[1].panels.append(
        wr.LinePlot(title="Frechet distance by images seen", x=IMAGES, metric_regex="^(fid/.+)$", log_y=True)
    )
    pictures = wr.MediaBrowser(title="Samples", media_keys=list(PICTURES), mode="gallery", gallery_axis="step")
    sections.insert(0, ws.Section("What does it draw?", panels=[pictures], is_open=True))
    comparison = [wr.RunComparer(diff_only="split"), wr.ParameterImportancePlot(with_respect_to="val/loss_best")]
    sections.append(ws.Section("What differs?", panels=comparison))
    return ws.Workspace(
        entity=entity,
        project=project,
        name="diffusion-lit",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEPS),
        runset_settings=ws.RunsetSettings(pinned_columns=["run:displayName", *BEST]),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="your name or your team's in W&B")
    parser.add_argument("project", help="logger.wandb.project of the runs")
    arguments = parser.parse_args()
    print(view(arguments.entity, arguments.project).save().url)
