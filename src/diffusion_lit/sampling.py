"""One `sample` from its configuration to its files: images are shared out, drawn, written, and put together."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from diffusion_lit.counted import counted
from diffusion_lit.distributed.collective import decided, rank_and_size, wait_for_all
from diffusion_lit.distributed.processes import start_processes
from diffusion_lit.drawing import draw
from diffusion_lit.drawn.folder import SampleFolder
from diffusion_lit.drawn.output import FILES, write_outputs
from diffusion_lit.drawn.request import check_channels, formats_of, indices_of
from diffusion_lit.files import refuse_folders
from diffusion_lit.generate import Setup, load_models, set_up
from diffusion_lit.labels import Labels, OnePerWay
from diffusion_lit.loading import check_same
from diffusion_lit.picture.image import file_kind
from diffusion_lit.preparation.workspace import Workspace
from diffusion_lit.provenance import repeat_command, settings_of
from diffusion_lit.terminal.interruption import CommandInterrupted, Interrupted, Interruption
from diffusion_lit.terminal.progress import progress
from diffusion_lit.terminal.screen import choose_progress

__all__ = ["sample"]

log = logging.getLogger(__name__)


def sample(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Draw what `cfg` (conf/sample.yaml) asks for into the folder `cfg.out`, or what is missing of it there.

    Args:
        cfg: the settings.
        overrides: the command line that they come from.

    Raises:
        Interrupted: if the process was asked to stop.
        ValueError: if a setting is wrong, or the folder holds images of other settings.
        FileNotFoundError: if there is no such checkpoint.
    """
    choose_progress(cfg.progress)
    formats, indices = formats_of(cfg), indices_of(cfg, overrides)
    with Interruption() as interruption:
        interruption.started = True  # signals are answered wherever drawing is
        start_processes(cfg.devices, cfg.device != "cpu" and torch.cuda.is_available())
        check_same(cfg.ckpt, (models := load_models(cfg)).contents)
        setup = set_up(cfg, models)
        labels = setup.by_index
        if labels is not None and cfg.interpolate is not None:
            labels = OnePerWay(labels, cfg.interpolate)
        channels = setup.denoiser.space.image_channels(setup.denoiser.image_shape[0])
        check_channels(formats, channels)
        kind = file_kind(channels)
        folder = SampleFolder(Path(cfg.out), kind in formats, kind)
        made = [FILES.get(name, name) for name in formats if name != kind]
        refuse_folders(folder.out / name for name in made if name != "shards")
        if "shards" in formats:
            Workspace(folder.out / "shards").refuse_foreign()
        try:
            which = [indices.start, indices.stop] if isinstance(indices, range) else list(indices)
            product = {"files": made, "caption": cfg.caption, "indices": which}
            missing = decided(lambda: folder.open(settings_of(cfg, models, setup, labels), indices, product))
            draw_missing(cfg, setup, labels, folder, missing, len(indices))
            wait_for_all()
            if rank_and_size()[0] == 0 and folder.is_finished:
                print(f"{counted(len(indices), 'image')} are in {folder.out} already: {', '.join(made)}")
            elif rank_and_size()[0] == 0:
                write_outputs(cfg, setup, folder, indices, None if labels is None else [labels[i] for i in indices])
        except Interrupted as stop:
            if rank_and_size()[0] > 0:
                raise SystemExit(stop.exit_code) from None
            kept = f"what was drawn stays in {folder.out}"
            raise CommandInterrupted(stop.number, kept, repeat_command("sample", cfg, overrides)) from None
        finally:
            folder.release()


def draw_missing(
    cfg: DictConfig, setup: Setup, labels: Labels | None, folder: SampleFolder, missing: Sequence[int], total: int
) -> None:
    """Draw this process's share of the missing images, each written as soon as its batch is done."""
    rank, size = rank_and_size()
    own = missing[rank::size]
    if len(missing) < total and rank == 0:
        log.info("%d of %d images are there already", total - len(missing), total)
    if not own:
        return
    # The bar moves at each step, and shows images of all processes, which are about as far as this one.
    share, done = len(missing) / max(1, len(own)), 0
    with progress("drawing", len(missing), "images") as work:
        settings = (labels, cfg.seed, cfg.batch_size, cfg.interpolate)
        drawn = draw(setup, own, *settings, on_step=lambda s, x_s: work.advance(len(x_s) * share / setup.num_steps))
        for batch, images in drawn:
            for i, image in zip(batch, images, strict=True):
                folder.save(i, image)
            done += len(batch)
            work.reach(done * share)  # and no batch that did not fit, or was filled up
