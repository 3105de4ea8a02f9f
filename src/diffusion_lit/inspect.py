"""Say what a dataset holds, and draw a contact sheet of it: python -m diffusion_lit.inspect --help"""

from omegaconf import DictConfig

from diffusion_lit.command_line.command import command


@command("inspect")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    from hydra.utils import instantiate

    from diffusion_lit.contact_sheet import choose_examples, draw_contact_sheet
    from diffusion_lit.data import ImageDataModule
    from diffusion_lit.picture.image import seen_as

    if cfg.split not in ("train", "val", "test"):
        raise ValueError(f"split must be train, val or test, got {cfg.split}")
    if cfg.rows < 1 or cfg.columns < 1:
        raise ValueError(f"need rows and columns of at least 1, got {cfg.rows} and {cfg.columns}")
    data: ImageDataModule = instantiate(cfg.data)
    data.prepare_data()
    data.setup()
    space = data.space
    name = "images" if data.latents else space.name
    for split, images in data.splits.items():
        print(f"{split}: {len(images)} {name} of {' x '.join(map(str, (data.channels, *data.sides)))}")
    if data.class_names is not None:
        counts = {split: data.class_counts(split) for split in data.splits}
        width = max(map(len, [*data.class_names, "class"]))
        print(f"{'class':{width}}" + "".join(f"{split:>10}" for split in counts))
        for i, name in enumerate(data.class_names):
            print(f"{name:{width}}" + "".join(f"{'?' if c is None else c[i]:>10}" for c in counts.values()))
    for key, value in data.facts().items():
        print(f"{key}: {value}")
    examples = choose_examples(data, cfg.split, cfg.rows, cfg.columns)
    path = Path(cfg.out) / "contact_sheet.png"
    drawn = {name: space.images(stored) for name, stored in examples.items()}
    draw_contact_sheet(drawn, path)
    shown = seen_as(next(iter(drawn.values())).shape[1])
    print(f"{path} ({shown})" if shown else path)


if __name__ == "__main__":
    main()
