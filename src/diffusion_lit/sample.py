"""Draw images from a trained model: python -m diffusion_lit.sample --help"""

from omegaconf import DictConfig

from diffusion_lit.command import command


@command("sample")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    import torch
    from hydra.utils import instantiate
    from tqdm import tqdm

    from diffusion_lit.checkpoint import load_denoiser
    from diffusion_lit.generate import default_labels, generate
    from diffusion_lit.guidance import guided
    from diffusion_lit.image import image_grid, save_image, save_npz
    from diffusion_lit.sampler import Sampler

    formats = [cfg.format] if isinstance(cfg.format, str) else list(cfg.format)
    if not formats or set(formats) - {"grid", "png", "npz"}:
        raise ValueError(f"format must be grid, png, npz or a list of these, got {cfg.format}")
    if cfg.num_samples < 1 or cfg.batch_size < 1:
        raise ValueError(f"need num_samples and batch_size of at least 1, got {cfg.num_samples} and {cfg.batch_size}")
    device = choose_device(cfg.device)
    model, _ = load_denoiser(cfg.ckpt, cfg.weights, device, cfg.autoencoder)
    model.space.check()
    worse = None if cfg.guide is None else load_denoiser(cfg.guide, cfg.weights, device)[0]
    denoiser = guided(model, cfg.guidance, worse, cfg.guidance_interval)
    sampler: Sampler = instantiate(cfg.sampler)
    sampler.check(denoiser)
    num_steps = len(sampler.times(denoiser.schedule)) - 1
    classes = chosen_classes(cfg.labels, denoiser.num_classes)

    if cfg.interpolate is not None and cfg.interpolate < 2:
        raise ValueError(
            f"interpolate is how many images lead from one noise to the next, 2 or more; got {cfg.interpolate}"
        )

    indices = range(cfg.num_samples)
    subjects = [i // (cfg.interpolate or 1) for i in indices]  # all images between two noises are of one class
    labels = default_labels(denoiser, subjects, classes)
    batches = [indices[begin : begin + cfg.batch_size] for begin in range(0, cfg.num_samples, cfg.batch_size)]
    images = []
    with tqdm(total=len(batches) * num_steps, desc="sampling", unit="step") as bar:
        for batch in batches:
            chosen = None if labels is None else [labels[i] for i in batch]
            images.append(
                generate(
                    denoiser, sampler, batch, chosen, cfg.seed, device, cfg.interpolate, lambda *_: bar.update()
                ).cpu()
            )
    samples = torch.cat(images)

    out = Path(cfg.out)
    if "grid" in formats:
        shown = samples[:400]  # a larger picture helps nobody
        per_row = denoiser.num_classes if classes is None else len(classes)
        columns = cfg.interpolate or (per_row if per_row and 4 <= per_row <= 20 else 8)
        save_image(image_grid(shown, columns), out / "grid.png")
    if "png" in formats:
        for i, image in enumerate(samples):
            save_image(image, out / "png" / f"{i:06d}.png")
    if "npz" in formats:
        save_npz(samples, labels, out / "samples.npz")
    print(f"{len(samples)} images from {cfg.ckpt} ({cfg.weights} weights)")
    for path in ("grid.png", "png", "samples.npz"):
        if (out / path).exists():
            print(f"  {out / path}")


def choose_device(name: str) -> str:
    """The device that `name` means here.

    Raises:
        ValueError: if this machine has no such device.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available.get(name.split(":")[0], False):
        there = ", ".join(device for device, there in available.items() if there)
        raise ValueError(f"device={name} is not available here; choose auto or one of: {there}")
    return name


def chosen_classes(labels: object, num_classes: int | None) -> list[int] | None:
    """The classes to take in turn that `labels` asks for, or None.

    Raises:
        ValueError: if the model has no classes, or not these.
    """
    if labels is None:
        return None
    if num_classes is None:
        raise ValueError(f"labels={labels}, but this model was trained without classes; leave labels out")
    classes = [labels] if isinstance(labels, int) else list(labels)  # type: ignore[call-overload]
    if not classes or not all(isinstance(c, int) and 0 <= c < num_classes for c in classes):
        raise ValueError(f"labels must be classes from 0 to {num_classes - 1}, got {labels}")
    return classes


if __name__ == "__main__":
    main()
