"""Turn images into shards that training reads without delay: python -m diffusion_lit.prepare --help"""

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command
from diffusion_lit.command_line.shell import command_line


@command("prepare")
def main(cfg: DictConfig) -> None:
    import time
    from pathlib import Path

    from diffusion_lit.counted import counted
    from diffusion_lit.preparation.build import build
    from diffusion_lit.preparation.maker import Maker
    from diffusion_lit.preparation.settings import open_source, reading_of
    from diffusion_lit.preparation.workspace import REPORT, Workspace
    from diffusion_lit.prepared.manifest import MANIFEST
    from diffusion_lit.terminal.screen import choose_progress

    choose_progress(cfg.progress)
    reading, encoding = reading_of(cfg)
    out = Path(str(cfg.out))
    source = open_source(cfg, Workspace(out))
    count = sum(map(len, source.splits.values()))
    classes = counted(len(source.class_names), "class", "classes") if source.class_names else "no classes"
    print(f"{source.description}: {counted(count, 'image')}, {classes}")
    for remark in source.remarks():
        print(remark)
    already, start = (out / MANIFEST).is_file() and not cfg.overwrite, time.monotonic()
    maker = Maker(source, reading, encoding, cfg.latents, out)
    manifest = build(maker, cfg.workers, cfg.shard_megabytes * 2**20, cfg.max_unreadable, cfg.overwrite)
    seconds = max(time.monotonic() - start, 1e-9)
    when = "prepared before" if already else f"{count / seconds:.0f} images/s"

    shape = " x ".join(map(str, manifest.shape))
    size = sum(shard.bytes for shard in manifest.shards)
    counts = ", ".join(f"{split.count} {name}" for name, split in manifest.splits.items())
    print(f"{out}: {counts}; {shape} {manifest.encoding}, {size / 2**20:.1f} MiB, {when}")
    print(f"content_hash {manifest.content_hash}")
    if manifest.num_unreadable:
        print(f"left out {counted(manifest.num_unreadable, 'image')} that cannot be read: see {out / REPORT}")
    kind = "memmap" if manifest.encoding == "raw" else "stream"
    print("Try next")
    for name in ("inspect", "train"):
        print(f"  {command_line(name, {'data': kind, 'data.root': out})}")


if __name__ == "__main__":
    main()
