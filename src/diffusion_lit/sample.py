"""Draw images from a trained model: python -m diffusion_lit.sample --help"""

from omegaconf import DictConfig

from diffusion_lit.command import command


@command("sample")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    import torch
    import torch.distributed as dist
    from tqdm import tqdm

    from diffusion_lit.collective import rank_and_size
    from diffusion_lit.generate import generate, set_up
    from diffusion_lit.image import column_titles, image_grid, save_image, save_npz

    formats = [cfg.format] if isinstance(cfg.format, str) else list(cfg.format)
    if not formats or set(formats) - {"grid", "png", "npz"}:
        raise ValueError(f"format must be grid, png, npz or a list of these, got {cfg.format}")
    if cfg.num_samples < 1 or cfg.batch_size < 1:
        raise ValueError(f"need num_samples and batch_size of at least 1, got {cfg.num_samples} and {cfg.batch_size}")
    if cfg.interpolate is not None and cfg.interpolate < 2:
        raise ValueError(f"interpolate is how many images lead from noise to noise, 2 or more; got {cfg.interpolate}")
    setup = set_up(cfg)
    indices = range(cfg.num_samples)
    subjects = [i // (cfg.interpolate or 1) for i in indices]  # all images between two noises are of one class
    labels = setup.labels(subjects)
    batches = [indices[begin : begin + cfg.batch_size] for begin in range(0, cfg.num_samples, cfg.batch_size)]
    num_steps = len(setup.sampler.times(setup.denoiser.schedule)) - 1
    rank, world_size = rank_and_size()
    own = batches[rank::world_size]
    out = Path(cfg.out)
    drawn = []
    with tqdm(total=len(own) * num_steps, desc="sampling", unit="step", disable=rank > 0) as bar:
        settings = (labels, cfg.seed, setup.device, cfg.interpolate, lambda *_: bar.update())
        for batch in own:
            drawn.append(generate(setup.denoiser, setup.sampler, batch, *settings).cpu())
            if "png" in formats:
                for i, image in zip(batch, drawn[-1], strict=True):
                    save_image(image, out / "png" / f"{i:06d}.png")
    shares = [drawn]
    if world_size > 1:
        shares = [[]] * world_size
        dist.gather_object(drawn, shares if rank == 0 else None)
    if rank > 0:
        return
    samples = torch.cat([shares[i % world_size][i // world_size] for i in range(len(batches))])

    if "grid" in formats:
        shown = samples[:400]  # a larger picture helps nobody
        per_row = len(setup.classes or ())
        columns = cfg.interpolate or (per_row if 4 <= per_row <= 20 else 8)
        titles = column_titles(labels, columns, setup.class_names)
        save_image(image_grid(shown, columns, titles), out / "grid.png")
    if "npz" in formats:
        save_npz(samples, labels, out / "samples.npz")
    print(f"{len(samples)} images from {cfg.ckpt} ({cfg.weights} weights)")
    for path in ("grid.png", "png", "samples.npz"):
        if (out / path).exists():
            print(f"  {out / path}")


if __name__ == "__main__":
    main()
